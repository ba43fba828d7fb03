"""NF4 with double quantisation through bitsandbytes: to it, from it, and what it makes of a whole linear."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nemo_reasoning.config.model import PeftScheme
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.errors import BackendError
from nemo_reasoning.peft.sizes import BLOCK

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SPLIT_COLUMNS = ("linear_proj", "linear_fc2")  # row parallel: each rank holds some of the inputs


@dataclass(frozen=True)
class Nf4Base:
    """How a QLoRA run held its base, enough to compute the weights again.

    Attributes:
        targets: Megatron's names of the quantised linears.
        shards: Tensor-parallel size; each rank quantised its own shard.
        dtype: Name of the dtype the weights had before they were quantised.
    """

    targets: tuple[str, ...]
    shards: int
    dtype: str


def nf4_base(settings: SftSettings) -> Nf4Base | None:
    """Return how a run holds its base; None if not in NF4."""
    if settings.peft.scheme is not PeftScheme.qlora:
        return None
    rounded = "bfloat16" in settings.model.dtype or settings.trainer.precision == "bf16-mixed"
    return Nf4Base(
        targets=tuple(settings.peft.target_modules),
        shards=settings.trainer.tensor_model_parallel_size,
        dtype="bfloat16" if rounded else "float32",
    )


def require_bitsandbytes() -> None:
    """Raise BackendError unless bitsandbytes is installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BackendError("peft=qlora needs bitsandbytes, which is not installed; pip install --no-deps bitsandbytes")


def quantise(weight: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Quantise a matrix on the device it is on.

    Args:
        weight: [outputs, inputs], float32, bfloat16 or float16; blocks run along its rows.

    Returns:
        Two weights a byte, uint8 [ceil(outputs * inputs / 2), 1], and bitsandbytes' `QuantState`.
    """
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(
        weight.detach().contiguous(), blocksize=BLOCK, quant_type="nf4", compress_statistics=True
    )
    return packed, state


def dequantise(packed: torch.Tensor, state: Any) -> torch.Tensor:
    """Return the matrix [outputs, inputs] that `quantise` packed, in the dtype it had."""
    from bitsandbytes.functional import dequantize_4bit

    weight: torch.Tensor = dequantize_4bit(packed, state)
    return weight


def stored_bytes(packed: torch.Tensor, state: Any) -> int:
    """Return the bytes of everything `dequantise` needs, code books included."""
    parts = (packed, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
    return sum(part.nbytes for part in parts)


def as_trained(weight: torch.Tensor, *, target: str, base: Nf4Base) -> torch.Tensor:
    """Return the values a QLoRA run computed with in the place of a linear's weight.

    Args:
        weight: [outputs, inputs] of all ranks, rows as Megatron orders them, any floating dtype.
        target: Megatron's name of the linear.
        base: How the run held its base.

    Returns:
        A new tensor of the same shape and dtype.
    """
    require_bitsandbytes()
    rounded = weight.to(DTYPES[base.dtype])
    pieces = [dequantise(*quantise(piece)) for piece in _split(rounded, target=target, shards=base.shards)]
    return _join(pieces, target=target).to(weight.dtype)


def _split(weight: torch.Tensor, *, target: str, shards: int) -> Sequence[torch.Tensor]:
    """Return the shard of each rank."""
    if target in _SPLIT_COLUMNS:
        return weight.chunk(shards, dim=1)
    if target == "linear_fc1":  # rows: gate, then up; a rank holds a part of each
        gate, up = (half.chunk(shards) for half in weight.chunk(2))
        return [torch.cat(pair) for pair in zip(gate, up, strict=True)]
    return weight.chunk(shards)


def _join(pieces: Sequence[torch.Tensor], *, target: str) -> torch.Tensor:
    if target in _SPLIT_COLUMNS:
        return torch.cat(list(pieces), dim=1)
    if target == "linear_fc1":
        halves = [piece.chunk(2) for piece in pieces]
        return torch.cat([gate for gate, _ in halves] + [up for _, up in halves])
    return torch.cat(list(pieces))
