"""LoRA around a frozen linear of the torch layers as one operation.

NeMo computes the adapter beside the linear, scales its output and adds it, each a pass over the largest tensors
of a layer, and again in the backward pass. Here the adapter's second half accumulates into the linear's output,
and its gradient into that of the linear's input, within the matrix product. NeMo does the same with Transformer
Engine's operation fuser.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from nemo.collections.llm.peft.lora import LoRALinear
from torch.autograd.function import once_differentiable

from nemo_reasoning.backend.torch_layers import LayerNormColumnParallelLinear


class FusedLoRALinear(LoRALinear):  # type: ignore[misc]
    """NeMo's `LoRALinear`, fused where one rank holds the whole linear; elsewhere it runs as NeMo has it."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (output [s, b, outputs], None) of x [s, b, inputs], or what NeMo returns."""
        linear, adapter = self.to_wrap, self.adapter
        if args or kwargs or not self._fuses(x):
            output: tuple[torch.Tensor, torch.Tensor | None] = super().forward(x, *args, **kwargs)
            return output
        if isinstance(linear, LayerNormColumnParallelLinear):
            x = linear.normalise(x)
        dropout = adapter.dropout.p if adapter.dropout is not None and self.training else 0.0
        return adapted_linear(
            x,
            down=adapter.linear_in.weight,
            up=adapter.linear_out.weight,
            weight=linear.dense_weight if hasattr(linear, "dense_weight") else lambda dtype: linear.weight,
            bias=linear.bias,
            scale=adapter.alpha / adapter.dim,
            dropout=dropout,
        ), None

    def _fuses(self, x: torch.Tensor) -> bool:
        linear, adapter = self.to_wrap, self.adapter
        return (
            isinstance(linear, ColumnParallelLinear | RowParallelLinear)
            and linear.tp_group.size() == 1
            and (linear.bias is None or not (linear.skip_bias_add or linear.bias.requires_grad))
            and not linear.weight.requires_grad
            and not linear.config.cpu_offloading
            and adapter.linear_in.weight.dtype == x.dtype
            and (adapter.dropout is None or adapter.dropout_position == "pre")
        )


def adapted_linear(
    x: torch.Tensor,
    *,
    down: torch.Tensor,
    up: torch.Tensor,
    weight: Callable[[torch.dtype], torch.Tensor],
    bias: torch.Tensor | None = None,
    scale: float,
    dropout: float,
) -> torch.Tensor:
    """Return x W^T + bias + scale * dropout(x) down^T up^T, [..., outputs].

    Args:
        x: [..., inputs].
        down: First half of the adapter [rank, inputs], in the dtype of x.
        up: Its second half [outputs, rank], in the dtype of x.
        weight: Returns the frozen W [outputs, inputs] in a dtype; called once in each pass.
        bias: Frozen, [outputs].
        scale: Factor on the adapter.
        dropout: Share of the adapter's inputs that is dropped.
    """
    output: torch.Tensor = _AdaptedLinear.apply(x, down, up, weight, bias, scale, dropout)  # type: ignore[no-untyped-call]
    return output


class _AdaptedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        down: torch.Tensor,
        up: torch.Tensor,
        weight: Callable[[torch.dtype], torch.Tensor],
        bias: torch.Tensor | None,
        scale: float,
        dropout: float,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        seen, kept = torch.native_dropout(rows, dropout, True) if dropout else (rows, None)
        low = seen @ down.t()
        output = F.linear(rows, weight(x.dtype), None if bias is None else bias.to(x.dtype))
        output.addmm_(low, up.t(), alpha=scale)
        ctx.save_for_backward(rows, low, down, up, kept)
        ctx.weight, ctx.scale, ctx.dropout = weight, scale, dropout
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, low, down, up, kept = ctx.saved_tensors
        shape, gradient = gradient.shape[:-1], gradient.reshape(-1, gradient.shape[-1])
        for_low = torch.mm(gradient, up).mul_(ctx.scale)
        for_up = torch.mm(gradient.t(), low).mul_(ctx.scale)
        for_down = torch.mm(for_low.t(), _dropped(rows, kept, ctx.dropout))
        if not ctx.needs_input_grad[0]:
            return None, for_down, for_up, None, None, None, None
        for_rows = torch.mm(gradient, ctx.weight(gradient.dtype))
        if kept is None:
            for_rows.addmm_(for_low, down)
        else:
            for_rows += _dropped(torch.mm(for_low, down), kept, ctx.dropout)
        return for_rows.view(*shape, -1), for_down, for_up, None, None, None, None


def _dropped(x: torch.Tensor, kept: torch.Tensor | None, dropout: float) -> torch.Tensor:
    """Return x with the elements zero that were dropped before, the others scaled as then."""
    return x if kept is None else torch.ops.aten.native_dropout_backward(x, kept, 1 / (1 - dropout))
