"""Attention for decoding with grouped queries, without copying keys and values to every query head."""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROUPED = "grouped_sdpa"


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' "sdpa" does; a single position takes a shorter way.

    With one new position nothing is causal within the query, so the heads that share keys and values
    can stand in the place of positions: same sums, and each key is read once instead of once a head.

    Args:
        module: The attention layer; its `num_key_value_groups` is the heads per group.
        query: [batch, heads, positions, head size].
        key: [batch, groups, all positions, head size].
        value: As `key`.
        attention_mask: Boolean [batch, 1, positions, all positions], True where to attend; None for all.
        scaling: Factor of the scores; None for 1/sqrt(head size).
        **options: Of transformers' own function.

    Returns:
        [batch, positions, heads, head size], and no weights.
    """
    batch, heads, positions, size = query.shape
    if positions > 1:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
        return output, None
    by_group = query.view(batch, key.shape[1], -1, size)
    output = scaled_dot_product_attention(by_group, key, value, attn_mask=attention_mask, scale=scaling)
    return output.reshape(batch, 1, heads, size), None


def register() -> str:
    """Make the attention known to transformers and return its name; doing so twice changes nothing."""
    AttentionInterface.register(GROUPED, grouped_attention)
    AttentionMaskInterface.register(GROUPED, sdpa_mask)
    return GROUPED
