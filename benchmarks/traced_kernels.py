"""What a GPU computes in one kernel, as one operation on the meta device that keeps what the kernel keeps."""

from typing import Any

import torch


class RmsNorm(torch.autograd.Function):
    """One kernel a pass; keeps the input and a float32 factor a row."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """Norm."""
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """Return gradients of the input and of a trained weight."""
        x, weight, _ = ctx.saved_tensors
        return torch.add(gradient, x), torch.empty_like(weight) if weight.requires_grad else None, None


class Swiglu(torch.autograd.Function):
    """One kernel a pass; keeps gate and up."""

    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor) -> torch.Tensor:
        """Return silu(gate) * up."""
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return torch.mul(gate, up)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient of both."""
        (gate_up,) = ctx.saved_tensors
        return gate_up.clone()


def dequantize(packed: torch.Tensor, state: Any, *, out: torch.Tensor) -> torch.Tensor:
    """Do what bitsandbytes' kernels do, whose answer for meta tensors refuses every buffer."""
    torch.mul(state.absmax, state.offset)  # the scales, in float32
    return out.zero_()


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Write the gradient over the logits, and return the losses."""
    logits.mul_(1.0)
    return logits.new_empty(len(labels))


def dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """Drop as CUDA does: a byte an element is kept."""
    return torch.native_dropout(x, p, True)[0] if training and p else x


def packed(rows: int, tokens: int, samples: int) -> Any:
    """Return Megatron's description of rows that hold samples of equal length."""
    from megatron.core.packed_seq_params import PackedSeqParams

    from nemo_reasoning.backend.attention import Samples

    lengths = [tokens // samples] * (samples * rows)
    bounds = torch.empty(len(lengths) + 1, dtype=torch.int32, device="meta")
    described = PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds, max_seqlen_q=lengths[0], max_seqlen_kv=lengths[0]
    )
    described.samples = Samples(lengths)
    return described
