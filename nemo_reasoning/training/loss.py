"""Cross entropy straight from hidden states, at supervised positions only, without ever holding all logits.

Logits are the largest tensor of a language model: at 8,192 positions and a vocabulary of 128,256 they take
4 GB in float32, and their gradient as much again. Here a chunk of positions at a time is multiplied with the
output head, turned into losses and gradients, and forgotten (the idea of arXiv 2411.09009 and of Liger,
arXiv 2410.10989). The head is frozen under an adapter, so the gradient of a position's hidden state is known up
to the factor that the backward pass brings, and is computed with the loss. The gradient of a trainable head sums
over positions, each with its own factor, so there the logits are computed again in the backward pass.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from nemo_reasoning.backend.kernels import cross_entropy
from nemo_reasoning.data.store import IGNORED_LABEL
from nemo_reasoning.training.memory.estimate import LOGIT_CHUNK_BYTES


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    group: "dist.ProcessGroup | None" = None,
    chunk_bytes: int = LOGIT_CHUNK_BYTES,
) -> torch.Tensor:
    """Return the cross entropy of `hidden @ weight.T` against `labels`, per position, float32 [n].

    Args:
        hidden: [n, hidden], any floating dtype.
        weight: Output head [vocabulary, hidden]; with a `group`, this rank's rows of it.
        labels: Token ids [n], int64, each within the vocabulary.
        group: Tensor-parallel group over which the vocabulary is split in order of rank; None if it is whole.
        chunk_bytes: Bound on the logits held at a time.
    """
    rows = max(1, chunk_bytes // (4 * weight.shape[0]))
    if group is not None and group.size() == 1:
        group = None
    head = _TrainableHead if weight.requires_grad else _FrozenHead
    loss: torch.Tensor = head.apply(hidden, weight, labels, group, rows)  # type: ignore[no-untyped-call]
    return loss


class _FrozenHead(torch.autograd.Function):
    """Losses, with the gradient of the hidden states computed along."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        group: "dist.ProcessGroup | None",
        rows: int,
    ) -> torch.Tensor:
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if wanted else None
        for part, found, logits in _chunks(hidden, weight, labels, group, rows):
            losses[part] = found
            if gradient is not None:
                torch.mm(logits.to(weight.dtype), weight, out=gradient[part])
            del logits  # before the next chunk's are made
        if gradient is not None and group is not None:
            dist.all_reduce(gradient, group=group)
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        if gradient is None:
            return None, None, None, None, None
        return gradient.mul(loss_gradient.to(gradient.dtype)[:, None]), None, None, None, None


class _TrainableHead(torch.autograd.Function):
    """Losses; the logits are computed again for the gradients of hidden states and head."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        group: "dist.ProcessGroup | None",
        rows: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(hidden, weight, labels)
        ctx.group, ctx.rows = group, rows
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        for part, found, logits in _chunks(hidden, weight, labels, group, rows):
            losses[part] = found
            del logits
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None, None]:
        hidden, weight, labels = ctx.saved_tensors
        group, rows = ctx.group, ctx.rows
        hidden_gradient = torch.empty_like(hidden)
        # The chunks' shares are summed in float32: bfloat16 would round after every chunk.
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        for part, _, logits in _chunks(hidden, weight, labels, group, rows):
            gradient = logits.mul_(loss_gradient[part, None]).to(weight.dtype)
            del logits
            torch.mm(gradient, weight, out=hidden_gradient[part])
            weight_gradient += gradient.t() @ hidden[part]
        if group is not None:
            dist.all_reduce(hidden_gradient, group=group)
        return hidden_gradient, weight_gradient.to(weight.dtype), None, None, None


def _chunks(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, group: "dist.ProcessGroup | None", rows: int
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield `rows` positions at a time with what `_losses` makes of them: losses, and the gradients of logits."""
    first = 0 if group is None else group.rank() * weight.shape[0]
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        logits = F.linear(hidden[part], weight).float()
        yield part, _losses(logits, labels[part] - first, group), logits
        del logits


def _losses(logits: torch.Tensor, labels: torch.Tensor, group: "dist.ProcessGroup | None") -> torch.Tensor:
    """Return the losses [n]; `logits` [n, vocabulary] become their gradients, softmax minus one-hot, in place.

    `labels` count from this rank's first row; those outside it belong to other ranks.
    """
    if group is None and (losses := cross_entropy(logits, labels)) is not None:
        return losses
    here = (labels >= 0) & (labels < logits.shape[1])
    place = labels.clamp(0, logits.shape[1] - 1)[:, None]
    highest = logits.amax(dim=1, keepdim=True)
    if group is not None:
        dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=group)
    logits.sub_(highest)
    target = logits.gather(1, place).squeeze(1) * here
    total = logits.exp_().sum(dim=1, keepdim=True)
    if group is not None:
        dist.all_reduce(target, group=group)
        dist.all_reduce(total, group=group)
    logits.div_(total)
    logits.scatter_add_(1, place, -here[:, None].to(logits.dtype))
    return total.log_().squeeze(1) - target


def supervised_loss(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, *, group: "dist.ProcessGroup | None" = None
) -> torch.Tensor:
    """Return the loss of every position, 0 where the label is `IGNORED_LABEL`: such positions never meet the head.

    Args:
        hidden: [positions, batch, hidden], as Megatron lays them out.
        weight: As for `linear_cross_entropy`.
        labels: [batch, positions], int64.
        group: As for `linear_cross_entropy`.

    Returns:
        [batch, positions], float32.
    """
    by_position = labels.t().flatten()
    kept = (by_position != IGNORED_LABEL).nonzero().squeeze(1)
    # Indexed as it lies: the gradient of a transposed view would have strides that make every
    # matrix product of the backward pass copy its weight once a position.
    chosen = hidden.reshape(-1, hidden.shape[-1]).index_select(0, kept)
    losses = linear_cross_entropy(chosen, weight, by_position[kept], group=group)
    return losses.new_zeros(len(by_position)).index_put((kept,), losses).view(labels.shape[::-1]).t().contiguous()
