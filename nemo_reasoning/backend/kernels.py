"""RMSNorm, SwiGLU and rotary embedding of the torch layers, each one pass forward and one backward.

torch composes RMSNorm of a dozen passes in float32 on a CPU and keeps several of them; Megatron's compiled SwiGLU
needs a C++ compiler and its plain one keeps five tensors. Megatron's rotary embedding, without Transformer Engine,
takes packed input apart at every layer, computes sines and cosines anew for queries and for keys, and keeps both for
the backward pass; here they are computed once a batch, and the backward pass turns the gradient back.

On a GPU RMSNorm, SwiGLU and cross entropy are Liger's Triton kernels (arXiv 2410.10989) where they are installed,
otherwise torch's. docs/training.md has the table of which kernel runs where, and why.
"""

import importlib
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

_LIGER = {
    "rms_norm": "LigerRMSNormFunction",
    "swiglu": "LigerFusedGateUpSiLUMulFunction",
    "cross_entropy": "cross_entropy_forward",
}


def liger(operation: str, x: torch.Tensor) -> Any:
    """Return Liger's function for an operation on a tensor; None on a CPU, and where this Liger has none."""
    return _liger(operation) if x.is_cuda else None


@cache
def _liger(operation: str) -> Any:
    try:
        module = importlib.import_module(f"liger_kernel.ops.{operation}")
    except ModuleNotFoundError:
        return None
    return getattr(module, _LIGER[operation], None)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight, [..., n], in the dtype of x (arXiv 1910.07467).

    Args:
        x: [..., n].
        weight: [n], frozen or not, in the dtype of x.
        eps: Added to the mean of the squares.
    """
    if (kernel := liger("rms_norm", x)) is not None:
        fused: torch.Tensor = kernel.apply(x, weight, eps, 0.0, "llama", False)
        return fused
    if x.device.type != "cpu" or weight.requires_grad:
        return F.rms_norm(x, weight.shape, weight, eps)
    normalised: torch.Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return normalised


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.to(torch.float32, copy=True)
        inverse = torch.linalg.vecdot(wide, wide).div_(x.shape[-1]).add_(eps).rsqrt_()[..., None]
        ctx.save_for_backward(x, weight, inverse)
        return wide.mul_(inverse).mul_(weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, weight, inverse = ctx.saved_tensors
        # A layer norm's gradient with a mean of zero is this one less `inverse` times the mean of gradient * weight.
        zero = torch.zeros_like(inverse)
        result = torch.ops.aten.native_layer_norm_backward(
            gradient, x, weight.shape, zero, inverse, weight.float(), None, [True, False, False]
        )[0]
        mean = (gradient @ weight)[..., None] / x.shape[-1]
        return result.add_(inverse * mean), None, None


def swiglu(gate_up: torch.Tensor, bias: torch.Tensor | None = None, *options: Any) -> torch.Tensor:
    """Return silu(gate) * up, [..., n], of gate and up one behind the other, [..., 2 n]; with Megatron's signature.

    A bias [2 n] is added to gate and up before. On a GPU without Liger it is Megatron's compiled one.
    """
    summed = gate_up if bias is None else gate_up + bias
    if (kernel := liger("swiglu", gate_up)) is not None:
        rows = summed.reshape(-1, summed.shape[-1])  # the kernel's gradient has two dimensions, whatever its input has
        product: torch.Tensor = kernel.apply(rows).view(*summed.shape[:-1], -1)
    elif gate_up.device.type == "cpu":
        product = _SwiGLU.apply(summed)  # type: ignore[no-untyped-call]
    else:
        from megatron.core.fusions.fused_bias_swiglu import bias_swiglu_impl

        product = bias_swiglu_impl(gate_up, bias, *options)
    return product


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        result = torch.empty_like(gate_up)
        for_gate, for_up = result.chunk(2, dim=-1)
        torch.mul(F.silu(gate), gradient, out=for_up)
        torch.ops.aten.silu_backward.grad_input(gradient * up, gate, grad_input=for_gate)
        return result


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor | None:
    """Return the losses [n], float32, by Liger's kernel; None where it does not run.

    Args:
        logits: [n, vocabulary], float32; they become their gradients, softmax minus one-hot, in place.
        labels: [n], int64, each within the vocabulary.
    """
    kernel = liger("cross_entropy", logits)
    if kernel is None:
        return None
    logits.requires_grad_()  # what the kernel asks to know whether gradients are wanted
    losses: torch.Tensor = kernel(logits, labels, None, -100, 0.0, 0.0, "none", None, False)[0]
    logits.requires_grad_(False)
    return losses


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
