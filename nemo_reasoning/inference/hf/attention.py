"""Attention of a running batch, without copying keys and values to every query head."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROUPED = "grouped_sdpa"


class Piece(NamedTuple):
    """Tokens of a forward pass that attend together: as many of each of some rows of the cache.

    Attributes:
        rows: Of the cache, one after the other.
        new: Tokens of each of them.
        seen: Positions that they attend to, those beyond a token's own excepted.
        mask: Boolean [rows, 1, new, seen], True where to attend.
    """

    rows: slice
    new: int
    seen: int
    mask: torch.Tensor


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: Any,
    value: Any,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    pieces: Sequence[Piece] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' "sdpa" does, or in pieces, each to rows of its own.

    Args:
        module: The attention layer; its `num_key_value_groups` is the heads per group.
        query: [batch, heads, tokens, head size]; the batch is 1 where there are pieces, and the tokens of all stand
            side by side, those of no piece behind them.
        key: [batch, groups, all positions, head size]; a list of such tensors where there are pieces, one for each.
        value: As `key`.
        attention_mask: Boolean [batch, 1, tokens, all positions], True where to attend; None for all. Pieces have
            their own.
        scaling: Factor of the scores; None for 1/sqrt(head size).
        pieces: How the tokens are divided.
        **options: Of transformers' own function.

    Returns:
        [batch, tokens, heads, head size], and no weights.
    """
    if pieces is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
        return output, None
    _, heads, tokens, size = query.shape
    flat, start, outputs = query[0].transpose(0, 1), 0, []
    for piece, keys, values in zip(pieces, key, value, strict=True):
        end = start + len(piece.mask) * piece.new
        outputs.append(_attend(flat[start:end], keys, values, piece, scaling=scaling))
        start = end
    if start < tokens:
        outputs.append(query.new_zeros(tokens - start, heads, size))
    return torch.cat(outputs)[None], None


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, piece: Piece, *, scaling: float | None
) -> torch.Tensor:
    """Return the attention of a piece, [tokens, heads, head size] as its query.

    With one new token a row nothing is causal within the query, so the heads that share keys and values can stand in
    the place of tokens: same sums, and each key is read once instead of once a head.
    """
    (tokens, heads, size), (rows, groups, _, _) = query.shape, key.shape
    if piece.new == 1:
        by_group = query.view(rows, groups, heads // groups, size)
        output = scaled_dot_product_attention(by_group, key, value, attn_mask=piece.mask, scale=scaling)
        return output.reshape(tokens, heads, size)
    by_row = query.view(rows, piece.new, heads, size).transpose(1, 2)
    key, value = (states.repeat_interleave(heads // groups, dim=1) for states in (key, value))
    output = scaled_dot_product_attention(by_row, key, value, attn_mask=piece.mask, scale=scaling)
    return output.transpose(1, 2).reshape(tokens, heads, size)


def register() -> str:
    """Make the attention known to transformers and return its name; doing so twice changes nothing."""
    AttentionInterface.register(GROUPED, grouped_attention)
    AttentionMaskInterface.register(GROUPED, sdpa_mask)
    return GROUPED
