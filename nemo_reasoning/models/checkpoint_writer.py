"""Write a NeMo checkpoint of a base model from its files, with one weight in memory at a time.

NeMo's own import holds a model three times: as transformers loads it, in Megatron's modules, and in the copy that is
written; 48 GB for 8B in bfloat16. Here Megatron's modules are made on the meta device, where they take no memory, and
only say what a checkpoint holds: how each tensor is called, divided and shaped. The weights go from the files of the
base straight into the checkpoint.
"""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.state_dict_saver import save

from nemo_reasoning.config.model import Architecture
from nemo_reasoning.errors import ModelSourceError
from nemo_reasoning.models.families.base import ModelFamily
from nemo_reasoning.models.weight_files import DTYPES, read_weights, weight_shapes

_OF_LAYER = re.compile(r"module\.decoder\.layers\.((?:self_attention|mlp)\.(\w+)\.(\w+))")
_WHOLE = {
    "module.embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "module.decoder.final_layernorm.weight": "model.norm.weight",
    "module.output_layer.weight": "lm_head.weight",
}
_FORMAT = ("torch_dist", 1)  # of Megatron's distributed checkpoints

Value = Callable[[], torch.Tensor | io.BytesIO]


class _OneByOne(DefaultSavePlanner):
    """Says what there is to write, and makes each part when it is its turn."""

    def __init__(self, parts: list[tuple[WriteItem, Value]]) -> None:
        super().__init__(flatten_state_dict=False)
        self._items = [item for item, _ in parts]
        self._values = {_place(item.index): value for item, value in parts}

    def create_local_plan(self) -> SavePlan:
        return SavePlan(self._items)

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor | io.BytesIO:
        return self._values[_place(write_item.index)]()


def _place(index: MetadataIndex) -> tuple[str, tuple[int, ...] | None]:
    """Return what tells an item from the others; the index's own hint is rewritten meanwhile."""
    return index.fqn, None if index.offset is None else tuple(index.offset)


def write_weights(out: Path, *, model: Any, base: Path, family: ModelFamily, shape: Architecture, dtype: str) -> None:
    """Write tensors and objects into the folder `weights` of a NeMo checkpoint; call where processes are a group.

    Args:
        out: An existing folder.
        model: Megatron's, on the meta device.
        base: The base model's Hugging Face directory.
        family: Of the base model.
        shape: Of the base model.
        dtype: Name of the dtype to store.

    Raises:
        ModelSourceError: The directory lacks a weight, or holds one of another shape or with NaN.
    """
    from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config

    source = _Source(base, family, shape, dtype)
    parts = [_part(shard, source) for shard in _shards(model)]
    try:
        save({}, storage_writer=FileSystemWriter(out), planner=_OneByOne(parts))
    except CheckpointException as error:  # torch's, around what our own reading raised
        raise next((own for own, _ in error.failures.values() if isinstance(own, ModelSourceError)), error) from None
    save_config(CheckpointingConfig(*_FORMAT), str(out))


def _shards(model: Any) -> Iterator[Any]:
    """Yield what a checkpoint of a model holds, one tensor or object of one layer at a time."""
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import ShardedTensorFactory

    for value in nested_values(model.sharded_state_dict(prefix="module.")):
        yield from nested_values(value.build()) if isinstance(value, ShardedTensorFactory) else [value]


def _part(shard: Any, source: "_Source") -> tuple[WriteItem, Value]:
    from megatron.core.dist_checkpointing.mapping import ShardedObject

    if isinstance(shard, ShardedObject):
        return WriteItem(MetadataIndex(shard.unique_key), WriteItemType.BYTE_IO), lambda: _pickled([shard.data])
    offsets = torch.Size(shard.global_offset)
    sizes = torch.Size((1,) * shard.prepend_axis_num + tuple(shard.local_shape))
    written = TensorWriteData(
        chunk=ChunkStorageMetadata(offsets, sizes),
        properties=TensorProperties(dtype=source.dtype),
        size=torch.Size(shard.global_shape),
    )
    value = source.value(shard)
    return WriteItem(MetadataIndex(shard.key, offsets), WriteItemType.SHARD, tensor_data=written), value


def _pickled(value: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer


class _Source:
    """Weights of a base model under Megatron's names."""

    def __init__(self, base: Path, family: ModelFamily, shape: Architecture, dtype: str) -> None:
        self._base, self._family, self._shape = base, family, shape
        self._read, self._shapes = read_weights(base, dtype), weight_shapes(base)
        self.dtype = DTYPES[dtype]

    def value(self, shard: Any) -> Callable[[], torch.Tensor]:
        """Return what reads the tensor of a shard, with an axis for its layer where the checkpoint has one."""
        names = self._names(shard)
        size = (1,) * shard.prepend_axis_num + tuple(shard.local_shape)
        for name in names:
            if name not in self._shapes:
                raise ModelSourceError(f"{self._base} holds no {name}; download it again")
        shapes = [self._shapes[name] for name in names]
        rows = sum(shape[0] for shape in shapes)
        if any((rows, *shape[1:]) != tuple(shard.local_shape) for shape in shapes):
            raise ModelSourceError(
                f"{self._base}: {', '.join(names)} of {shapes} cannot be {shard.key} of {tuple(shard.local_shape)}; "
                "download config.json and weights again"
            )
        return lambda: self._fused(names).reshape(size).contiguous()

    def _names(self, shard: Any) -> list[str]:
        """Return the Hugging Face weights that make up a shard."""
        found = _OF_LAYER.fullmatch(shard.key)
        if found is None:
            return [_WHOLE[shard.key]]
        layer, (name, linear, kind) = shard.global_offset[0], found.groups()
        if norm := self._family.hf_norms.get(name):
            return [f"model.layers.{layer}.{norm}.weight"]
        modules = self._family.hf_modules[linear]
        if linear == "linear_fc1":  # gate and up are shards of their own
            modules = modules[shard.global_offset[1] * len(modules) // shard.global_shape[1] :][:1]
        return [f"model.layers.{layer}.{module}.{kind}" for module in modules]

    def _fused(self, names: list[str]) -> torch.Tensor:
        """Return a weight or bias, or those of queries, keys and values in Megatron's order: group by group."""
        parts = [self._finite(name) for name in names]
        if len(parts) == 1:
            return parts[0]
        groups, size = self._shape.num_query_groups, self._shape.head_dim
        return torch.cat([part.view(groups, -1, size, *part.shape[1:]) for part in parts], dim=1)

    def _finite(self, name: str) -> torch.Tensor:
        weight = self._read(name)
        if not bool(weight.isfinite().all()):
            raise ModelSourceError(
                f"{name} holds NaN or infinite numbers in {str(self.dtype).removeprefix('torch.')}; download it again"
            )
        return weight
