"""Rotary position embedding for the torch layers: sines once a batch instead of twice a layer, and no copies.

Megatron's own, without Transformer Engine, takes packed input apart at every layer, computes sines and cosines
anew for queries and for keys, and keeps both for the backward pass, which here turns the gradient back.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable


def apply_rotary_pos_emb(
    t: torch.Tensor,
    freqs: torch.Tensor,
    config: Any,
    cu_seqlens: torch.Tensor | None = None,
    mscale: float = 1.0,
    cp_group: Any = None,
) -> torch.Tensor:
    """Return queries or keys turned by their position; stands in for Megatron's function of the name.

    Args:
        t: [s, b, h, d], or [t, h, d] when packed.
        freqs: Angles [positions, 1, 1, d], float32, their second half equal to the first.
        config: Unused; the torch layers neither interleave nor split the context.
        cu_seqlens: Where packed samples begin and end, [samples + 1], int32.
        mscale: Factor on sine and cosine.
        cp_group: Unused.
    """
    cosine, sine = _tables(t, freqs, cu_seqlens, mscale)
    turned: torch.Tensor = _Turn.apply(t, cosine, sine)  # type: ignore[no-untyped-call]
    return turned


def _tables(
    t: torch.Tensor, freqs: torch.Tensor, cu_seqlens: torch.Tensor | None, mscale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosine [positions, 1, d] and sine [positions, 1, d / 2], with one more axis where t has a batch.

    All layers share them: they are kept with the tensor that says where the samples lie.
    """
    owner, key = (freqs if cu_seqlens is None else cu_seqlens), (len(t), t.dtype, mscale)
    if getattr(owner, "turns", {}).keys() != {key}:
        angles = freqs[: len(t)] if cu_seqlens is None else freqs[_positions(cu_seqlens, t, len(freqs))].squeeze(1)
        half = angles[..., : angles.shape[-1] // 2]
        owner.turns = {key: ((angles.cos() * mscale).to(t.dtype), (half.sin() * mscale).to(t.dtype))}  # type: ignore[attr-defined]
    found: tuple[torch.Tensor, torch.Tensor] = owner.turns[key]  # type: ignore[attr-defined]
    return found


def _positions(cu_seqlens: torch.Tensor, t: torch.Tensor, longest: int) -> torch.Tensor:
    """Return each token's place in its sample, [tokens]; padding behind the last sample counts on, within `longest`."""
    token, starts = torch.arange(len(t), device=t.device), cu_seqlens[:-1].long()
    place = token - starts[torch.searchsorted(starts, token, right=True) - 1]
    return place.clamp_(max=longest - 1)


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cosine, sine)
        return _turned(t, cosine, sine, sign=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _turned(gradient, *ctx.saved_tensors, sign=-1), None, None


def _turned(t: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, *, sign: int) -> torch.Tensor:
    result = torch.mul(t, cosine)
    (first, second), (to_first, to_second) = t.chunk(2, dim=-1), result.chunk(2, dim=-1)
    to_first.addcmul_(second, sine, value=-sign)
    to_second.addcmul_(first, sine, value=sign)
    return result
