"""The base weights a QLoRA run computed with, under Hugging Face's names."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch

from nemo_reasoning.artifacts import fingerprint
from nemo_reasoning.config.model import Architecture
from nemo_reasoning.export.weights import hf_modules, unfuse
from nemo_reasoning.peft.hf_adapter import fuse
from nemo_reasoning.peft.nf4 import Nf4Base, as_trained

MERGE_BASES = ("dequantised", "original")


@dataclass(frozen=True)
class Qlora:
    """What an export of a QLoRA run needs beside that of a LoRA run.

    Attributes:
        base: How training held the base.
        merge_onto: "dequantised" to merge onto the weights that training computed with, or "original".
        original_logits: The adapter on the original base, usually `verify.nemo_reference_logits(checkpoint)`;
            needed to verify a merge onto it.
    """

    base: Nf4Base
    merge_onto: str
    original_logits: Callable[[Sequence[torch.Tensor]], list[torch.Tensor]] | None = None

    def under(self, format_name: str) -> Nf4Base | None:
        """Return how the base under an export is quantised; None for the original weights."""
        return None if format_name == "merged" and self.merge_onto == "original" else self.base

    def recorded(self) -> dict[str, Any]:
        """Return what the manifest says."""
        base = asdict(self.base)
        base["digests"] = None if self.base.digests is None else fingerprint(base["digests"])
        return {"base_in_training": {"format": "nf4", **base}, "merge_onto": self.merge_onto}


class TrainedBase:
    """Quantises and dequantises a base model's linears as training did, a fused linear at a time.

    Scales are shared across the rows of Megatron's linears, so q, k and v are put together before and
    taken apart after.
    """

    def __init__(self, read: Callable[[str], torch.Tensor], *, base: Nf4Base, shape: Architecture) -> None:
        """Take how to read an original weight by its name, such as model.layers.0.mlp.up_proj.weight."""
        self._read, self._base, self._shape = read, base, shape
        self._linear = lru_cache(maxsize=1)(self._dequantised)  # its parts are asked for in a row

    def weight(self, name: str) -> torch.Tensor | None:
        """Return the weight in its original dtype as training held it; None if training did not quantise it."""
        for target in self._base.targets:
            for part in hf_modules(self._shape)[target]:
                if name.startswith("model.layers.") and name.endswith(f".{part}.weight"):
                    return self._linear(name.removesuffix(f"{part}.weight"), target)[part]
        return None

    def linears(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the weights of each linear that training quantised, by their names."""
        for layer in range(self._shape.num_layers):
            for target in self._base.targets:
                stem = f"model.layers.{layer}."
                yield {f"{stem}{part}.weight": rows for part, rows in self._dequantised(stem, target).items()}

    def _dequantised(self, layer: str, target: str) -> dict[str, torch.Tensor]:
        parts = {part: self._read(f"{layer}{part}.weight") for part in hf_modules(self._shape)[target]}
        number = int(layer.split(".")[2])  # of model.layers.N.
        fused = fuse(target, list(parts.values()), self._shape)
        trained = as_trained(fused, target=target, base=self._base, layer=number)
        return unfuse(target, trained, self._shape)


@torch.no_grad()
def hold_as_trained(model: Any, *, base: Nf4Base, shape: Architecture) -> None:
    """Replace the linears' weights of a Hugging Face model, in place, by those a QLoRA run computed with."""
    state = model.state_dict()
    for linear in TrainedBase(lambda name: state[name], base=base, shape=shape).linears():
        for name, weight in linear.items():
            state[name].copy_(weight)
