"""RMSNorm for a CPU, where torch composes it of a dozen passes in float32 and keeps several of them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight, [..., n], in the dtype of x (arXiv 1910.07467).

    Args:
        x: [..., n].
        weight: [n], frozen or not, in the dtype of x.
        eps: Added to the mean of the squares.
    """
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
