"""SwiGLU for a CPU, where Megatron's compiled one needs a C++ compiler and its plain one keeps five tensors."""

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable


def swiglu(gate_up: torch.Tensor, bias: torch.Tensor | None = None, *_: Any) -> torch.Tensor:
    """Return silu(gate) * up, [..., n], of gate and up one behind the other, [..., 2 n]; with Megatron's signature.

    A bias [2 n] is added to gate and up before.
    """
    product: torch.Tensor = _SwiGLU.apply(gate_up if bias is None else gate_up + bias)  # type: ignore[no-untyped-call]
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
