"""NF4 with double quantization (arXiv 2305.14314): to it, from it, and what it makes of a whole linear.

Quantizing is our own: bitsandbytes' takes three times as long on a CPU, sums the mean of the scales in float32 in an
order that depends on device and number of threads, and on a CPU takes now and then the second nearest code of a scale.
Here every step is exact or, the mean, summed in float64, so that all devices give the same bits and an export on a CPU
computes the base again that a GPU trained on. Dequantizing is bitsandbytes' kernels.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from nemo_reasoning.config.model import PeftScheme
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.errors import VerificationError
from nemo_reasoning.models.sizes import NF4_BLOCK, NF4_SCALE_BLOCK, nf4_blocks
from nemo_reasoning.packages import require

DIGESTS_FILE = "nf4.json"  # in the folder of a run
SEPARATELY = "an earlier version began it, whose tensor-parallel ranks quantized their shares separately; train it anew"
_OTHER_BASE = "the base model is not the one it was trained on, or bitsandbytes' code books have changed since"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_CHUNK = {"cpu": 2**18, "cuda": 2**24}  # weights at a time: within a CPU's cache, and 64 MiB of float32 on a GPU


@dataclass(frozen=True)
class Nf4Base:
    """How a QLoRA run held its base, enough to compute the weights again.

    Attributes:
        targets: Megatron's names of the quantized linears.
        dtype: Name of the dtype of the run's parameters, from and to which weights are quantized and dequantized.
        digests: `digest` of each linear under "layer.target", as the run recorded it; None if it did not. Earlier
            versions recorded one for each tensor-parallel rank, which quantized its share alone.
    """

    targets: tuple[str, ...]
    dtype: str
    digests: Mapping[str, Sequence[str]] | None = None


def nf4_base(settings: SftSettings) -> Nf4Base | None:
    """Return how a run holds its base; None if not in NF4."""
    if settings.peft.scheme is not PeftScheme.qlora:
        return None
    return Nf4Base(
        targets=tuple(settings.peft.target_modules),
        dtype=settings.parameter_dtype,
    )


def require_bitsandbytes() -> None:
    """Raise MissingPackageError unless bitsandbytes is installed."""
    require("bitsandbytes", needed_by="peft=qlora")


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Quantize a matrix on the device it is on.

    Args:
        weight: [outputs, inputs], float32, bfloat16 or float16; blocks run along its rows.

    Returns:
        Two weights a byte, uint8 [ceil(outputs * inputs / 2), 1], bit for bit bitsandbytes', and its `QuantState`.
    """
    from bitsandbytes.functional import QuantState

    codes, scales = _blockwise(weight.detach().reshape(-1), _nf4_code(weight.device), NF4_BLOCK)
    mean = scales.double().mean().float()
    dynamic = _dynamic_code(weight.device)
    scale_codes, tops = _blockwise(scales - mean, dynamic, NF4_SCALE_BLOCK)
    nested = QuantState(absmax=tops, code=dynamic, blocksize=NF4_SCALE_BLOCK, dtype=torch.float32)
    state = QuantState(
        absmax=scale_codes,
        shape=weight.shape,
        code=_nf4_code(weight.device),
        blocksize=NF4_BLOCK,
        quant_type="nf4",
        dtype=weight.dtype,
        offset=mean,
        state2=nested,
    )
    return _packed(codes), state


def share_of(packed: torch.Tensor, state: Any, *, ranks: int, rank: int, groups: int) -> tuple[torch.Tensor, Any]:
    """Return a tensor-parallel rank's share of what `quantize` made of a whole matrix: the same values, to the bit.

    Args:
        packed: Two weights a byte.
        state: What belongs to them.
        ranks: That share the matrix.
        rank: Number of this one.
        groups: As `models.sizes.nf4_groups` says.
    """
    outputs, inputs = state.shape
    count = outputs * inputs
    block, nested = nf4_blocks(count // ranks // groups)

    def part(values: torch.Tensor, *, held: int, wanted: int) -> torch.Tensor:
        """Return the share of values of which each stands for `held` weights, as values for `wanted` ones."""
        repeated = values.repeat_interleave(held // wanted)[: count // wanted]
        return repeated.view(groups, ranks, -1)[:, rank].flatten()

    share, scales = copy(state), copy(state.state2)
    scales.absmax = part(scales.absmax, held=NF4_BLOCK * NF4_SCALE_BLOCK, wanted=block * nested)
    scales.blocksize, share.state2 = nested, scales
    share.absmax, share.blocksize = part(state.absmax, held=NF4_BLOCK, wanted=block), block
    share.shape = torch.Size((outputs, inputs // ranks) if groups == outputs else (outputs // ranks, inputs))
    return _packed(part(_unpacked(packed)[:count], held=1, wanted=1)), share


def _blockwise(flat: torch.Tensor, code: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest entry of a sorted code for each value over its block's maximum, uint8, and the maxima."""
    bounds = (code[:-1] + code[1:]) / 2
    codes = torch.empty(flat.numel(), dtype=torch.uint8, device=flat.device)
    maxima = torch.empty(-(-flat.numel() // block), dtype=torch.float32, device=flat.device)
    step = _CHUNK.get(flat.device.type, flat.numel())
    for start in range(0, flat.numel(), step):
        part = flat[start : start + step].float()
        padded = torch.nn.functional.pad(part, (0, -part.numel() % block)).view(-1, block)
        top = padded.abs().amax(dim=1)
        scaled = (padded * (1 / top.clamp(min=1e-38))[:, None]).view(-1)[: part.numel()]
        codes[start : start + step] = _count_below(scaled, bounds)
        maxima[start // block : start // block + len(top)] = top
    return codes, maxima


def _count_below(values: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    """Return how many of the sorted bounds lie below each value, uint8; for few bounds faster than a search."""
    if len(bounds) > 16:
        return torch.bucketize(values, bounds, out_int32=True).to(torch.uint8)
    count = torch.zeros(values.shape, dtype=torch.uint8, device=values.device)
    for bound in bounds:
        count += values > bound
    return count


def _packed(codes: torch.Tensor) -> torch.Tensor:
    """Return two codes of four bits a byte, the first in the upper half, [ceil(n / 2), 1]; a last one stands alone."""
    if codes.numel() % 2:
        codes = torch.cat([codes, torch.full_like(codes[:1], 7)])  # the code of zero
    return ((codes[::2] << 4) | codes[1::2])[:, None]


def _unpacked(packed: torch.Tensor) -> torch.Tensor:
    return torch.cat([packed >> 4, packed & 15], dim=1).flatten()


@cache
def _nf4_code(device: torch.device) -> torch.Tensor:
    from bitsandbytes.functional import get_4bit_type

    code: torch.Tensor = get_4bit_type("nf4", device=device)
    return code


@cache
def _dynamic_code(device: torch.device) -> torch.Tensor:
    from bitsandbytes.functional import create_dynamic_map

    code: torch.Tensor = create_dynamic_map().to(device)
    return code


def dequantize(packed: torch.Tensor, state: Any, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return the matrix [outputs, inputs] that `quantize` packed, in the dtype it had.

    Args:
        packed: Two weights a byte.
        state: What belongs to them.
        out: Where to write it, on a GPU.
    """
    from bitsandbytes.functional import QuantState, dequantize_4bit

    weight: torch.Tensor
    scales, count = _scales(state), state.shape.numel()
    if state.blocksize != NF4_BLOCK:  # which bitsandbytes has no kernel for
        codes = _unpacked(packed)[:count].int()
        values = state.code.index_select(0, codes).view(-1, state.blocksize) * scales[:, None]
        weight = values.view(state.shape).to(state.dtype)
        return weight if out is None else out.copy_(weight)
    # whole blocks a row: on a CPU the kernel takes wrong scales where a row ends within a block
    width = NF4_BLOCK if count % NF4_BLOCK == 0 else count
    rows = torch.Size((count // width, width))
    flat = QuantState(absmax=scales, shape=rows, blocksize=NF4_BLOCK, quant_type="nf4", dtype=state.dtype)
    weight = dequantize_4bit(packed, flat, out=None if out is None else out.view(rows))
    return weight.view(state.shape)


def _scales(state: Any) -> torch.Tensor:
    """Return the scale of each block in float32."""
    from bitsandbytes.functional import dequantize_blockwise

    nested = state.state2
    if nested.blocksize == NF4_SCALE_BLOCK:
        scales: torch.Tensor = dequantize_blockwise(state.absmax, nested)
    else:  # the same arithmetic in blocks that it has no kernel for
        values = nested.code.index_select(0, state.absmax.int()).view(-1, nested.blocksize)
        scales = (values * nested.absmax[:, None]).flatten()
    return scales.add_(state.offset)


def digest(packed: torch.Tensor, state: Any) -> str:
    """Return a checksum (CRC-32) of everything that decides what `dequantize` returns."""
    found = 0
    for part in (packed, state.absmax, state.state2.absmax, state.offset):
        found = zlib.crc32(part.detach().cpu().contiguous().numpy().tobytes(), found)
    return f"{found:08x}-{str(state.dtype).removeprefix('torch.')}"


def read_digests(folder: Path) -> dict[str, list[str]] | None:
    """Return what a run's folder says about its quantized base; None where it says nothing."""
    path = folder / DIGESTS_FILE
    if not path.is_file():
        return None
    found: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def as_trained(weight: torch.Tensor, *, target: str, base: Nf4Base, layer: int | None = None) -> torch.Tensor:
    """Return the values a QLoRA run computed with in the place of a linear's weight.

    Args:
        weight: [outputs, inputs] of all ranks, rows as Megatron orders them, any floating dtype; what the run's
            checkpoint of the base holds.
        target: Megatron's name of the linear.
        base: How the run held its base.
        layer: Number of its layer, from 0; with it the bits are compared with those the run recorded.

    Returns:
        A new tensor of the same shape and dtype.

    Raises:
        VerificationError: The run trained on other bits.
    """
    require_bitsandbytes()
    rounded = weight.to(DTYPES[base.dtype])
    quantized = quantize(rounded)
    if base.digests is not None and layer is not None:
        found, known = [digest(*quantized)], list(base.digests.get(f"{layer}.{target}", []))
        if found != known:
            raise VerificationError(
                f"quantizing {target} of layer {layer} again gives {found}, but the run trained on {known}; "
                + (SEPARATELY if len(known) > 1 else _OTHER_BASE)
            )
    return dequantize(*quantized).to(weight.dtype)
