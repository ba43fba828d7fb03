"""Causal attention of packed samples for bfloat16 on a CPU, in blocks of queries.

torch's own kernel takes two to four times as long there. Here nothing behind the diagonal's block is computed,
and the weights are computed again in the backward pass (arXiv 2205.14135), so that memory grows with the length
and not with its square. Samples are padded to whole blocks and taken together in powers of two, which leaves few
shapes of matrix products: oneDNN compiles a kernel for each, in milliseconds, and keeps it, in a megabyte.

Shapes: t tokens of all samples, h heads, g key-value groups, d head size; n samples of equally many blocks,
p positions of each.
"""

from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

BLOCK = 64  # query positions of a block; as fast as 128, and wastes less behind the diagonal
SHORT = 2 * BLOCK


class Samples:
    """Where the samples of a packed batch lie.

    Attributes:
        lengths: Tokens of each, [samples]; they follow each other.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        """Take the lengths."""
        self.lengths = list(lengths)

    @cached_property
    def groups(self) -> list[list[int]]:
        """Sample numbers that are attended to at once: equally many blocks, and a power of two of them."""
        by_blocks: dict[int, list[int]] = {}
        for sample, length in enumerate(self.lengths):
            by_blocks.setdefault(-(-length // BLOCK), []).append(sample)
        return [group for blocks, samples in by_blocks.items() if blocks for group in _powers_of_two(samples)]

    @cached_property
    def places(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For each group the token at each place, [n, p], int64, and the places that are no padding, [n, p], bool.

        Padding holds the last token of its sample: causality hides it.
        """
        lengths = torch.tensor(self.lengths)
        firsts = lengths.cumsum(0) - lengths
        found = []
        for group in self.groups:
            longest = -(-self.lengths[group[0]] // BLOCK) * BLOCK
            position, last = torch.arange(longest)[None], lengths[group][:, None] - 1
            found.append((firsts[group][:, None] + position.minimum(last), position <= last))
        return found


def _powers_of_two(samples: list[int]) -> Iterator[list[int]]:
    start = 0
    while start < len(samples):
        size = 1 << ((len(samples) - start).bit_length() - 1)
        yield samples[start : start + size]
        start += size


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
    """The heads of a group share its keys, so they are laid out as more queries: [n * g, h / g, p, d]."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, samples: Samples, scale: float
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.samples, ctx.scale = samples, scale
        mixed = torch.empty_like(query, memory_format=torch.contiguous_format)
        for tokens, real in samples.places:
            short = tokens.shape[1] <= SHORT
            kept = slice(int(real.sum(dim=1).max()) if short else None)
            laid_out = _laid_out(tokens[:, kept], query, key, value)
            result = _short_attention(*laid_out, scale=scale) if short else _block_attention(*laid_out, scale=scale)
            _put_back(mixed, result, tokens[:, kept], real[:, kept])
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        query, key, value = ctx.saved_tensors
        to_query, to_key, to_value = (
            torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
        )
        for tokens, real in ctx.samples.places:
            queries, keys, values, gradients = _laid_out(tokens, query, key, value, gradient)
            gradients *= real.repeat_interleave(key.shape[1], dim=0)[:, None, :, None]
            queries *= ctx.scale
            for_queries, for_keys, for_values = _block_gradients(queries, keys.squeeze(1), values.squeeze(1), gradients)
            _put_back(to_query, for_queries.mul_(ctx.scale), tokens, real)
            _put_back(to_key, for_keys[:, None].to(key.dtype), tokens, real)
            _put_back(to_value, for_values[:, None].to(value.dtype), tokens, real)
        return to_query, to_key, to_value, None, None


def _short_attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, scale: float) -> torch.Tensor:
    """Return attention by torch's kernel, whose forward pass is the faster one where blocks are mostly padding."""
    grouped = queries.shape[1] > 1
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=scale, enable_gqa=grouped)


def _block_attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, scale: float) -> torch.Tensor:
    """Return attention block by block; scales `queries` in place."""
    keys, values, result = keys.squeeze(1), values.squeeze(1), torch.empty_like(queries)
    queries *= scale
    for start in range(0, queries.shape[2], BLOCK):
        end = start + BLOCK
        weights = _weights(queries[:, :, start:end].flatten(1, 2), keys[:, :end])
        result[:, :, start:end] = torch.bmm(weights, values[:, :end]).view_as(result[:, :, start:end])
    return result


def _block_gradients(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, gradients: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of queries, keys and values; those of keys and values are summed in float32."""
    for_queries, for_keys = torch.empty_like(queries), torch.zeros_like(keys, dtype=torch.float32)
    for_values = torch.zeros_like(for_keys)
    for start in range(0, queries.shape[2], BLOCK):
        end = start + BLOCK
        asked, brought = (x[:, :, start:end].flatten(1, 2) for x in (queries, gradients))
        weights = _weights(asked, keys[:, :end])
        for_weights = torch.bmm(brought, values[:, :end].transpose(1, 2))
        for_scores = torch._softmax_backward_data(for_weights, weights, -1, weights.dtype)
        for_values[:, :end] += torch.bmm(weights.transpose(1, 2), brought)
        for_keys[:, :end] += torch.bmm(for_scores.transpose(1, 2), asked)
        for_queries[:, :, start:end] = torch.bmm(for_scores, keys[:, :end]).view_as(for_queries[:, :, start:end])
    return for_queries, for_keys, for_values


def _laid_out(tokens: torch.Tensor, *arrays: torch.Tensor) -> list[torch.Tensor]:
    """Return the samples of a group, [n * g, heads / g, p, d] of each [t, heads, d]; g is that of the second array."""
    samples, positions = tokens.shape
    groups = arrays[1].shape[1]
    return [
        x.index_select(0, tokens.flatten())
        .view(samples, positions, groups, -1, x.shape[2])
        .permute(0, 2, 3, 1, 4)
        .reshape(samples * groups, -1, positions, x.shape[2])
        for x in arrays
    ]


def _put_back(out: torch.Tensor, laid_out: torch.Tensor, tokens: torch.Tensor, real: torch.Tensor) -> None:
    """Write [n * g, heads / g, p, d] into the tokens of `out` [t, heads, d], without the padding."""
    samples, positions = tokens.shape
    by_head = laid_out.view(samples, -1, *laid_out.shape[1:])
    by_token = by_head.permute(0, 3, 1, 2, 4).reshape(samples * positions, *out.shape[1:])
    out.index_copy_(0, tokens[real], by_token[real.flatten()])


@cache
def _later() -> torch.Tensor:
    """Return which keys of a block come after a query of it, [BLOCK, BLOCK], bool."""
    return torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu_(1)


def _weights(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return the weights [n * g, h / g * BLOCK, keys] of queries at the positions of the last `BLOCK` keys."""
    scores = torch.bmm(queries, keys.transpose(1, 2))
    scores.view(len(scores), -1, BLOCK, keys.shape[1])[..., -BLOCK:].masked_fill_(_later(), -torch.inf)
    return scores.softmax(dim=-1)
