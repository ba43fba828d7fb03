"""Causal attention of packed samples for bfloat16 on a CPU, in blocks of queries.

torch's own kernel takes up to twice as long there. Here nothing behind the diagonal's block is computed,
and the weights are computed again in the backward pass (arXiv 2205.14135), so that memory grows with the length
and not with its square. The n-th blocks of all samples are computed at once, in powers of two, which leaves few
products and few shapes of them: oneDNN compiles a kernel for each shape, in milliseconds, and keeps it, in a
megabyte.

Shapes: t tokens of all samples, h heads, g key-value groups, d head size; n samples, p positions of the longest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch.autograd.function import once_differentiable

BLOCK = 64  # query positions of a block; as fast as 128, and wastes less behind the diagonal


@dataclass(frozen=True)
class Step:
    """Blocks that are computed at once.

    Attributes:
        samples: Which samples, by falling length.
        blocks: Where their blocks lie among all blocks.
        keys: Positions that the blocks see, a multiple of `BLOCK`.
    """

    samples: slice
    blocks: slice
    keys: int


@dataclass(frozen=True)
class Layout:
    """Where a packed batch's tokens go.

    Queries lie in blocks [blocks, g, h / g * BLOCK, d], keys and values in padded samples [n, g, p, d]; padding
    repeats the last token of its sample, which causality hides. All places count rows of d elements.

    Attributes:
        queries: For each row of the blocks its row of [t, h, d].
        queries_back: For each row of [t, h, d] its row of the blocks.
        padding: Rows of the blocks that are padding.
        keys: For each row of the padded samples its row of [t, g, d].
        keys_back: For each row of [t, g, d] its row of the padded samples.
        steps: In the order of the blocks.
    """

    queries: torch.Tensor
    queries_back: torch.Tensor
    padding: torch.Tensor
    keys: torch.Tensor
    keys_back: torch.Tensor
    steps: list[Step]


class Samples:
    """Where the samples lie.

    Attributes:
        lengths: Tokens of each, [samples]; they follow each other.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        """Take the lengths."""
        self.lengths = list(lengths)
        self._bounds: dict[torch.device, torch.Tensor] = {}
        self._layouts: dict[tuple[int, int], Layout] = {}

    def bounds(self, device: torch.device) -> torch.Tensor:
        """Return where the samples begin and end, [samples + 1], int32; all layers share it."""
        if device not in self._bounds:
            ends = torch.tensor([0, *self.lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
            self._bounds[device] = ends.to(device, non_blocking=True)
        return self._bounds[device]

    @cached_property
    def groups(self) -> list[list[int]]:
        """Numbers of the samples that have equally many blocks: little is wasted where those are padded alike."""
        by_blocks: dict[int, list[int]] = {}
        for sample, length in enumerate(self.lengths):
            by_blocks.setdefault(-(-length // BLOCK), []).append(sample)
        return [samples for blocks, samples in by_blocks.items() if blocks]

    def layout(self, *, heads: int, groups: int) -> Layout:
        """Return where tokens go; all layers share it."""
        if (heads, groups) not in self._layouts:
            self._layouts[heads, groups] = self._lay_out(heads, groups)
        return self._layouts[heads, groups]

    def _lay_out(self, heads: int, groups: int) -> Layout:
        lengths = torch.tensor(self.lengths)
        order = lengths.argsort(descending=True, stable=True)[: int(lengths.count_nonzero())]
        firsts, lengths = (lengths.cumsum(0) - lengths)[order, None], lengths[order, None]
        inside = torch.arange(BLOCK)
        depths = torch.arange(0, max(self.lengths), BLOCK)
        depth, sample = (depths[:, None] < lengths.T).nonzero().T  # of each block
        blocks = firsts[sample], lengths[sample], depths[depth, None] + inside
        padded = firsts, lengths, (depths[:, None] + inside).flatten()[None]
        queries, queries_back, padding = _both_ways(*blocks, heads=heads)
        keys, keys_back, _ = _both_ways(*padded, heads=groups)
        return Layout(queries, queries_back, padding, keys, keys_back, list(_steps(torch.bincount(depth).tolist())))


def _both_ways(
    firsts: torch.Tensor, lengths: torch.Tensor, positions: torch.Tensor, *, heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lay stretches of samples out as [stretches, heads, positions].

    Args:
        firsts: First token of each stretch's sample, [stretches, 1].
        lengths: Tokens of that sample, [stretches, 1].
        positions: Of a stretch, within the sample, [stretches or 1, positions].
        heads: How many.

    Returns:
        For each row laid out its row of [t, heads]; the reverse; and the rows laid out that are padding.
    """
    tokens, real = firsts + positions.minimum(lengths - 1), positions < lengths
    rows = tokens[:, None] * heads + torch.arange(heads)[:, None]
    places = torch.arange(rows.numel()).view_as(rows).transpose(1, 2)
    back = torch.empty_like(places[real]).index_copy_(0, tokens[real], places[real])
    return rows.flatten(), back.flatten(), places[~real].flatten()


def _steps(counts: Sequence[int]) -> Iterator[Step]:
    """Yield the steps of so many blocks at each depth."""
    block = 0
    for depth, count in enumerate(counts):
        sample = 0
        while sample < count:
            size = 1 << ((count - sample).bit_length() - 1)
            yield Step(slice(sample, sample + size), slice(block, block + size), (depth + 1) * BLOCK)
            sample, block = sample + size, block + size


def blocked_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, samples: Samples, scale: float
) -> torch.Tensor:
    """Return causal grouped-query attention within each sample, [t, h, d].

    Args:
        query: [t, h, d], bfloat16.
        key: [t, g, d], h a multiple of g.
        value: Like `key`.
        samples: Where the samples lie; their lengths add up to t.
        scale: Factor on the scores.
    """
    mixed: torch.Tensor = _Blocked.apply(query, key, value, samples, scale)  # type: ignore[no-untyped-call]
    return mixed


class _Blocked(torch.autograd.Function):
    """The heads of a group share its keys, so they are laid out as more queries."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, samples: Samples, scale: float
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.layout, ctx.scale = samples.layout(heads=query.shape[1], groups=key.shape[1]), scale
        queries, keys, values = _laid_out(ctx.layout, query, key, value)
        queries *= scale
        mixed = torch.empty_like(queries)
        for step in ctx.layout.steps:
            weights = _weights(_asking(queries, step), _read(keys, step))
            torch.bmm(weights, _read(values, step), out=_asking(mixed, step))
        return _gathered(mixed, ctx.layout.queries_back).view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        query, key, value = ctx.saved_tensors
        layout: Layout = ctx.layout
        queries, keys, values = _laid_out(layout, query, key, value)
        queries *= ctx.scale
        gradients = _gathered(gradient, layout.queries).index_fill_(0, layout.padding, 0).view_as(queries)
        for_queries = torch.empty_like(queries)
        for_keys, for_values = (torch.zeros_like(x, dtype=torch.float32) for x in (keys, values))
        for step in layout.steps:
            asked, brought = _asking(queries, step), _asking(gradients, step)
            seen = _read(keys, step)
            weights = _weights(asked, seen)
            for_weights = torch.bmm(brought, _read(values, step).transpose(1, 2))
            for_scores = torch._softmax_backward_data(for_weights, weights, -1, weights.dtype)
            _seen(for_values, step).add_(torch.bmm(weights.transpose(1, 2), brought))
            _seen(for_keys, step).add_(torch.bmm(for_scores.transpose(1, 2), asked))
            torch.bmm(for_scores, seen, out=_asking(for_queries, step))
        for_queries *= ctx.scale
        return (
            _gathered(for_queries, layout.queries_back).view(query.shape),
            _gathered(for_keys, layout.keys_back).view(key.shape).to(key.dtype),
            _gathered(for_values, layout.keys_back).view(value.shape).to(value.dtype),
            None,
            None,
        )


def _laid_out(
    layout: Layout, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the blocks of queries, and the padded samples of keys and of values."""
    groups, size = key.shape[1:]
    queries = _gathered(query, layout.queries).view(-1, groups, query.shape[1] // groups * BLOCK, size)
    positions = layout.steps[-1].keys
    keys, values = (_gathered(x, layout.keys).view(-1, groups, positions, size) for x in (key, value))
    return queries, keys, values


def _gathered(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return rows of d elements of x [..., d]."""
    return x.reshape(-1, x.shape[-1]).index_select(0, rows)


def _asking(blocks: torch.Tensor, step: Step) -> torch.Tensor:
    """Return the blocks of a step, [blocks * g, h / g * BLOCK, d], a view."""
    return blocks[step.blocks].flatten(0, 1)


def _seen(samples: torch.Tensor, step: Step) -> torch.Tensor:
    """Return what the blocks of a step see, [blocks * g, keys, d], a view."""
    return samples[step.samples, :, : step.keys].flatten(0, 1)


def _read(samples: torch.Tensor, step: Step) -> torch.Tensor:
    """Return what the blocks of a step see, in one piece: products copy what has gaps, slowly if transposed."""
    return _seen(samples, step).contiguous()


@cache
def _later() -> torch.Tensor:
    """Return which keys of a block come after a query of it, [BLOCK, BLOCK], bool."""
    return torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu_(1)


def _weights(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return the weights [blocks * g, h / g * BLOCK, keys] of queries at the positions of the last `BLOCK` keys."""
    scores = torch.bmm(queries, keys.transpose(1, 2))
    scores.view(len(scores), -1, BLOCK, keys.shape[1])[..., -BLOCK:].masked_fill_(_later(), -torch.inf)
    return scores.softmax(dim=-1)
