"""What a checkpoint of NeMo may name; anything else is refused before it is imported or called.

A context (io.json, and pickles beside it) calls the functions and classes that it names, with arguments of its own; so
do the pickles within a distributed checkpoint: `.metadata`, and what layers keep besides tensors. NeMo 2.7.3 limits
some of them to modules such as torch and cloudpickle, which hold functions that run anything, and earlier releases
none. Here the names are those of what NeMo, Megatron-Core and Transformer Engine write. `common.pt` is left to torch,
which reads nothing but tensors and plain values from it.
"""

import enum
import io
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import torch

from nemo_reasoning.backend.patching import Patch
from nemo_reasoning.errors import CheckpointError

# By module; besides these, the classes of the modules below, and torch's dtypes and layouts.
_NAMES = {
    "_codecs": "encode",
    "_io": "BytesIO",
    "builtins": "bytearray bytes complex dict frozenset list set slice tuple",
    "collections": "OrderedDict",
    "fiddle._src.config": "BuildableTraverserMetadata Config",
    "fiddle._src.partial": "Partial",
    "megatron.core.dist_checkpointing.strategies.torch": "MCoreMetadata MCoreSavePlan",
    "nemo.collections.llm.gpt.model.base": "default_layer_spec gpt_data_step gpt_forward_step",
    "nemo.lightning.io.artifact.hf_auto": "from_pretrained",
    "pathlib": "Path PosixPath",
    "torch": "Size",
    "torch._utils": "_rebuild_tensor_v2",
    "torch.distributed.checkpoint.filesystem": "_StorageInfo _StoragePrefix",
    "torch.distributed.checkpoint.metadata": "BytesStorageMetadata ChunkStorageMetadata Metadata MetadataIndex "
    "StorageMeta TensorProperties TensorStorageMetadata _MEM_FORMAT_ENCODING",
    "torch.distributed.checkpoint.planner": "BytesIOWriteData SavePlan TensorWriteData WriteItem WriteItemType",
    "torch.nn.functional": "gelu relu silu",
    "torch.nn.init": "normal_",
    "torch.serialization": "_get_layout",
    "transformers.generation.configuration_utils": "GenerationConfig",
}
_CLASSES_OF = (
    *("megatron.core.distributed.", "megatron.core.optimizer.", "megatron.core.transformer."),
    *("nemo.collections.common.tokenizers.", "nemo.collections.llm.gpt.model.", "nemo.collections.llm.peft."),
    *("nemo.lightning.io.pl.", "nemo.lightning.pytorch.", "transformer_engine.common.recipe."),
)
_REMOTE_CODE = "Attr(name='trust_remote_code')"


def find(module: str, name: str, *, where: object) -> Any:
    """Return the object that a checkpoint names, if it is one that NeMo's own checkpoints name.

    Raises:
        CheckpointError: It is not; nothing of it was imported.
    """
    if f"{module}.{name}" == "torch.storage._load_from_bytes":
        return _tensors
    module = "builtins" if module == "__builtin__" else module  # as Python 2 had it, and old protocols write
    known = name in _NAMES.get(module, "").split()
    if known or module == "torch" or f"{module}.".startswith(_CLASSES_OF):
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if known or isinstance(found, torch.dtype | torch.layout | enum.Enum) or _is_class(found, module):
            return found
    raise CheckpointError(
        f"{where} names {module}.{name}, which no checkpoint of NeMo needs; nothing of it was run. Do not use the "
        "checkpoint unless you know who wrote it, and why"
    )


def _is_class(found: Any, module: str) -> bool:
    """Whether something is a class of the module that it was taken from, and not one imported there."""
    return isinstance(found, type) and found.__module__ == module


def _tensors(data: bytes) -> Any:
    """Return tensors within a pickle, as torch pickles them, without what else `torch.load` would run."""
    return torch.load(io.BytesIO(data), weights_only=True)


def _limited(where: str) -> type[pickle.Unpickler]:
    """Return an unpickler of what is somewhere that refuses what `find` does."""

    class Limited(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return find(module, name, where=where)

    return Limited


def limited_load(file: IO[bytes]) -> Any:
    """Unpickle what names nothing but what NeMo writes.

    Raises:
        CheckpointError: Something else is named; nothing of it has run.
    """
    return _limited(getattr(file, "name", "the checkpoint"))(file).load()


def check_context(path: Path) -> None:
    """Refuse a context that names what NeMo's own do not, or asks for code from a model's directory.

    Args:
        path: A folder with io.json, or the file; what is not there is left to NeMo.

    Raises:
        CheckpointError: Says what is named; nothing of it has run.
    """
    file = path / "io.json" if path.is_dir() else path
    if not file.is_file():
        return
    for module, name in _named(json.loads(file.read_bytes()), file):
        find(module, name, where=file)


def _named(value: Any, file: Path) -> Iterator[tuple[str, str]]:
    """Yield module and name of each reference in a Fiddle configuration."""
    if isinstance(value, dict):
        if "module" in value and "name" in value:
            yield str(value["module"]), str(value["name"])
        for one in value.values():
            yield from _named(one, file)
    elif isinstance(value, list):
        if value[:1] == [_REMOTE_CODE] and value[1:] != [{**dict(value[1]), "value": False}]:
            raise CheckpointError(f"{file} sets trust_remote_code, which would run code from the checkpoint's folder")
        for one in value:
            yield from _named(one, file)


def _reading_contexts() -> Sequence[tuple[Any, str, Any]]:
    from nemo.lightning.io import api, mixin

    load: Callable[..., Any] = mixin.load

    def checked_load(path: Path, *args: Any, **kwargs: Any) -> Any:
        check_context(Path(path))
        return load(path, *args, **kwargs)

    reader = "_safe_pickle_load" if hasattr(mixin, "_safe_pickle_load") else "pickle_load"  # before NeMo 2.7.3
    return [(mixin, "load", checked_load), (api, "load", checked_load), (mixin, reader, limited_load)]


def check_weights(folder: Path) -> Any:
    """Return the metadata of a distributed checkpoint, having refused names of what NeMo's own do not hold.

    Args:
        folder: With `.metadata` and the files that it lists; what is not there is left to Megatron-Core.

    Returns:
        What has the attributes of a `torch.distributed.checkpoint.metadata.Metadata`; None where there is none.

    Raises:
        CheckpointError: Says what is named, a function or a file elsewhere, or that a pickle is damaged; nothing of it
            has run.
    """
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    file = folder / ".metadata"
    if not file.is_file():
        return None
    with file.open("rb") as opened:
        try:
            metadata = limited_load(opened)
        except (pickle.UnpicklingError, EOFError) as error:
            raise CheckpointError(f"{file} is damaged: {error}") from error
    parts = ("storage_data", "state_dict_metadata")  # its class differs between releases of Megatron-Core
    if not all(isinstance(getattr(metadata, part, None), dict) for part in parts):
        raise CheckpointError(f"{file} is damaged: it holds no metadata of a checkpoint")
    for index, place in metadata.storage_data.items():
        if Path(place.relative_path).name != place.relative_path:
            raise CheckpointError(f"{file} names {place.relative_path}, no file beside it; do not use the checkpoint")
        if isinstance(metadata.state_dict_metadata[index.fqn], BytesStorageMetadata):
            with (folder / place.relative_path).open("rb") as opened:
                opened.seek(place.offset)
                _check_bytes(io.BytesIO(opened.read(place.length)), where=f"{folder}, {index.fqn},")
    return metadata


def _check_bytes(data: io.BytesIO, *, where: str) -> None:
    """Refuse what a layer kept besides tensors, such as FP8's scales, where it names anything but those."""
    limited = _limited(where)
    module = SimpleNamespace(__name__="limited", Unpickler=limited, load=lambda file, **options: limited(file).load())
    try:
        kept = torch.load(data, weights_only=False, pickle_module=module)
        if isinstance(kept, torch.Tensor) and kept.dtype is torch.uint8 and kept.numel():
            limited(io.BytesIO(kept.numpy().tobytes())).load()  # Transformer Engine pickles into a tensor
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise CheckpointError(f"{where} is damaged: {error}") from error
    if isinstance(kept, io.BytesIO) and kept.getbuffer().nbytes:
        kept.seek(0)
        _check_bytes(kept, where=where)


def _reading_weights() -> Sequence[tuple[Any, str, Any]]:
    from megatron.core import dist_checkpointing

    load = dist_checkpointing.load

    def checked_load(sharded_state_dict: Any, checkpoint_dir: str, *args: Any, **kwargs: Any) -> Any:
        check_weights(Path(checkpoint_dir))
        return load(sharded_state_dict, checkpoint_dir, *args, **kwargs)

    return [(dist_checkpointing, "load", checked_load)]


TRUST = (
    Patch("contexts", "nemo.lightning.io.mixin.load calls whatever a context names", _reading_contexts),
    Patch("pickles", "megatron's dist_checkpointing.load unpickles what a checkpoint holds", _reading_weights),
)
