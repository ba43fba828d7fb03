"""Decode a batch of prompts with a key-value cache, dropping rows as they finish."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

Choose = Callable[[torch.Tensor], int]


@dataclass(frozen=True, slots=True)
class Job:
    """A row of a batch.

    Attributes:
        prompt: Token ids, not empty.
        max_new_tokens: Most tokens to add.
        choose: Picks a token from the logits [vocabulary] of one position; None takes the likeliest.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    choose: Choose | None


def sampler(*, temperature: float, top_p: float, seed: int) -> Choose | None:
    """Return how to pick a token: None for greedy decoding, else a function with a generator of its own.

    Nucleus sampling after Holtzman et al. 2020 (arXiv 1904.09751): the smallest set of likeliest tokens
    whose probabilities sum to at least `top_p`. Probabilities are float32 on the CPU, so that a seed
    draws the same on every device that computes the same logits.
    """
    if temperature == 0:
        return None
    generator = torch.Generator().manual_seed(seed)

    def choose(logits: torch.Tensor) -> int:
        ordered, tokens = (logits.float().cpu() / temperature).softmax(-1).sort(descending=True, stable=True)
        nucleus = ordered.cumsum(-1) - ordered < top_p
        drawn = torch.multinomial(ordered * nucleus, 1, generator=generator)
        return int(tokens[drawn])

    return choose


@torch.inference_mode()
def decode(model: Any, jobs: Sequence[Job], *, stop_ids: Collection[int]) -> list[list[int]]:
    """Continue every prompt until a stop token or its limit.

    A finished row leaves the batch and the cache at once, so that it costs nothing more.

    Args:
        model: A Hugging Face causal language model in evaluation mode.
        jobs: Rows; similar prompt lengths waste the least padding.
        stop_ids: Tokens that end a row.

    Returns:
        New tokens of each row; a row that stopped by itself ends with its stop token.
    """
    ids, mask = _left_padded([job.prompt for job in jobs], device=model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache()
    added: list[list[int]] = [[] for _ in jobs]
    rows = list(range(len(jobs)))
    while True:
        hidden = model.get_decoder()(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        # Two dimensions: with three, the product would copy the head's weights once a row.
        logits = model.get_output_embeddings()(hidden)
        for row, token in zip(rows, _pick(logits, [jobs[row].choose for row in rows]), strict=True):
            added[row].append(token)
        going = [
            place
            for place, row in enumerate(rows)
            if added[row][-1] not in stop_ids and len(added[row]) < jobs[row].max_new_tokens
        ]
        if not going:
            return added
        if len(going) < len(rows):
            kept = torch.tensor(going, device=ids.device)
            cache.batch_select_indices(kept)
            mask, positions = mask[kept], positions[kept]
            rows = [rows[place] for place in going]
        ids = torch.tensor([[added[row][-1]] for row in rows], device=ids.device)
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)


def _left_padded(prompts: Sequence[Sequence[int]], *, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and attention mask, both int64 [rows, longest]; the mask is 0 on padding."""
    longest = max(map(len, prompts))
    ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _pick(logits: torch.Tensor, choices: Sequence[Choose | None]) -> list[int]:
    """Return the next token of each row from logits [rows, vocabulary]."""
    likeliest: list[int] = logits.max(-1).indices.tolist()  # argmax takes six times as long in bfloat16
    return [
        token if choose is None else choose(logits[row])
        for row, (token, choose) in enumerate(zip(likeliest, choices, strict=True))
    ]
