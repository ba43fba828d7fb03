"""The weight files of a base model as it was published: safetensors or torch's pickles, one file or many."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open

from nemo_reasoning.errors import ModelSourceError
from nemo_reasoning.models.weights import names_in

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SAFETENSORS, _PICKLES = "model.safetensors", "pytorch_model.bin"


def base_files(base: Path) -> dict[Path, str]:
    """Return the weight files of a Hugging Face directory, each with its name as safetensors.

    Raises:
        ModelSourceError: There are none, or their index is broken or names files elsewhere.
    """
    for single in (_SAFETENSORS, _PICKLES):
        index = base / f"{single}.index.json"
        if index.is_file():
            try:
                return {base / name: _as_safetensors(name) for name in names_in(index)}
            except ValueError as error:
                raise ModelSourceError(f"{base} has {error}") from error
        if (base / single).is_file():
            return {base / single: _SAFETENSORS}
    raise ModelSourceError(
        f"{base} has neither {_SAFETENSORS} nor {_PICKLES}, nor an index of several; download it again"
    )


def _as_safetensors(name: str) -> str:
    return name.replace("pytorch_model", "model").removesuffix(".bin").removesuffix(".safetensors") + ".safetensors"


def read_file(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights of a file one at a time, each as it is stored."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as source:
            for name in source.keys():  # noqa: SIM118 - the handle is not a mapping
                yield name, source.get_tensor(name)
    else:
        yield from torch.load(file, map_location="cpu", weights_only=True, mmap=True).items()


def read_weights(base: Path, dtype: str) -> Callable[[str], torch.Tensor]:
    """Return how to read one weight of a base model by its name, wherever it is, rounded to `dtype`."""
    homes = {name: file for file in base_files(base) for name in _shapes(file)}

    def read(name: str) -> torch.Tensor:
        file = homes[name]
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as source:
                weight: torch.Tensor = source.get_tensor(name)
        else:
            weight = torch.load(file, map_location="cpu", weights_only=True, mmap=True)[name]
        return weight.to(DTYPES[dtype])

    return read


def weight_shapes(base: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of a base model by its name, without reading any."""
    return {name: shape for file in base_files(base) for name, shape in _shapes(file).items()}


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as source:
            return {name: tuple(source.get_slice(name).get_shape()) for name in source.keys()}  # noqa: SIM118
    held = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    return {name: tuple(weight.shape) for name, weight in held.items()}
