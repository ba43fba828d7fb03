"""Whether the weight files of a Hugging Face directory are whole, and those of the model that config.json describes.

Transformers fills weights that a file lacks with random numbers and leaves out those it does not know, in silence or
with a warning among others. Only headers are read, but for an output layer that may be the embedding's double.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_reasoning.errors import ModelSourceError

if TYPE_CHECKING:
    import torch

_KINDS = ("model.safetensors", "pytorch_model.bin")  # in the order that transformers looks for them
_DTYPES = ("F64", "F32", "F16", "BF16", "float64", "float32", "float16", "bfloat16")
_LFS = b"version https://git-lfs"
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def check_weights(path: Path, *, name: str) -> None:
    """Refuse a base whose weights are not whole, or not what its config.json says.

    Args:
        path: Hugging Face directory of a model of a known family.
        name: What the user calls it.

    Raises:
        ModelSourceError: Says everything that is wrong.
    """
    files, problems = _weight_files(path)
    homes: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            found = _header(file)
        except ValueError as error:
            problems.append(f"has a broken {file.name} ({error}); download it again")
            continue
        odd = sorted({dtype for dtype, _ in found.values()}.difference(_DTYPES))
        if odd:
            problems.append(f"has weights of dtype {', '.join(odd)} in {file.name}; choose the original, not quantized")
        homes |= dict.fromkeys(found, file)
        shapes |= {tensor: shape for tensor, (_, shape) in found.items()}
    if not problems:
        problems = _differences(path, shapes, homes)
    if problems:
        raise ModelSourceError("\n".join(f"model.source={name} {problem}" for problem in problems))


def _weight_files(path: Path) -> tuple[list[Path], list[str]]:
    """Return the files that transformers would read, and what is wrong about them."""
    for single in _KINDS:
        index, file = path / f"{single}.index.json", path / single
        if index.is_file() and file.is_file():
            return [], [f"holds both {single} and {index.name}; remove the one that does not belong to it"]
        if file.is_file():
            return [file], []
        if index.is_file():
            return _indexed(index)
    return [], [f"has parts of weights, but none of {', '.join(_KINDS)} or their index; download it again"]


def names_in(index: Path) -> list[str]:
    """Return the files that an index of weights names, which lie beside it.

    Raises:
        ValueError: It is broken, or names something elsewhere, where a converted copy would be written too.
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"a broken {index.name} ({type(error).__name__}: {error}); download it again") from error
    if not names:
        raise ValueError(f"a broken {index.name} (it names no file); download it again")
    if elsewhere := [
        name for name in names if not isinstance(name, str) or Path(name).name != name or name in ("", "..")
    ]:
        raise ValueError(f"an {index.name} that names {elsewhere[0]!r}, no file beside it; do not use this model")
    return names


def _indexed(index: Path) -> tuple[list[Path], list[str]]:
    try:
        files = [index.with_name(name) for name in names_in(index)]
    except ValueError as error:
        return [], [f"has {error}"]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        return [], [f"lacks {', '.join(absent)}, which {index.name} names; download it again"]
    return files, []


def _header(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape of each tensor of a file.

    Raises:
        ValueError: The file is not whole, or not what its name says.
    """
    with file.open("rb") as opened:
        if opened.read(len(_LFS)) == _LFS:
            raise ValueError("it only points to the file that Git LFS keeps; `git lfs pull` fetches that")
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="np") as opened:
                slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
                return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
        except SafetensorError as error:
            raise ValueError(error) from error
    return {
        name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in _pickled(file).items()
    }


def _pickled(file: Path) -> "Mapping[str, torch.Tensor]":
    import pickle

    import torch

    try:
        try:
            found = torch.load(file, map_location="meta", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            found = torch.load(file, map_location="meta", weights_only=True)  # written before torch 1.6
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ValueError("holds something else than weights")
    return found


def _differences(path: Path, stored: Mapping[str, tuple[int, ...]], homes: Mapping[str, Path]) -> list[str]:
    """Return where stored weights are not those of the model that transformers builds from config.json."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    ignored = [re.compile(pattern) for pattern in (*(model._keys_to_ignore_on_load_unexpected or ()), "inv_freq$")]
    tied = {_HEAD} if config.tie_word_embeddings else set()
    absent = sorted(wanted.keys() - stored.keys() - tied)
    extra = sorted(
        name for name in stored.keys() - wanted.keys() if not any(pattern.search(name) for pattern in ignored)
    )
    problems = []
    if absent == [_HEAD]:
        problems.append(
            f"has no {_HEAD}, though its config.json says tie_word_embeddings=false; set that to true if its authors "
            "say that it ties them, or download it again"
        )
    elif absent:
        problems.append(
            f"lacks {len(absent)} of its {len(wanted)} weights, such as {absent[0]}, which would be random numbers; "
            "download it again"
        )
    if extra:
        problems.append(
            f"holds {len(extra)} weights that its config.json knows nothing of, such as {extra[0]}, which would be "
            "left out; take the config.json that belongs to these weights"
        )
    for name in sorted(wanted.keys() & stored.keys()):
        if wanted[name] != stored[name]:
            problems.append(
                f"has {name} of shape {list(stored[name])}, where its config.json asks for {list(wanted[name])}; "
                "take the config.json that belongs to these weights"
            )
            break
    if not problems and tied and _HEAD in stored and not _equal(homes):
        problems.append(
            f"has a {_HEAD} that is not its embedding, though its config.json says tie_word_embeddings=true; set that "
            "to false"
        )
    return problems


def _equal(homes: Mapping[str, Path]) -> bool:
    """Whether output layer and embedding hold the same numbers."""
    import torch
    from safetensors import safe_open

    def read(name: str) -> torch.Tensor:
        file = homes[name]
        if file.suffix != ".safetensors":
            weight: torch.Tensor = torch.load(file, map_location="cpu", weights_only=True)[name]
            return weight
        with safe_open(file, framework="pt") as opened:
            held: torch.Tensor = opened.get_tensor(name)
        return held

    return torch.equal(read(_HEAD), read(_EMBEDDING))
