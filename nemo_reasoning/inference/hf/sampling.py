"""Pick tokens from logits."""

import math

import torch

_LIKELIEST = 256  # a nucleus has rarely more tokens, and finding them is much cheaper than sorting all


class Sampler:
    """Draws tokens with a random generator of its own.

    Nucleus sampling after Holtzman et al. 2020 (arXiv 1904.09751): the smallest set of likeliest tokens
    whose probabilities sum to at least `top_p`. Random numbers come from the CPU, so that a seed draws the
    same on every device that computes the same logits, whatever else is in the batch.
    """

    def __init__(self, *, temperature: float, top_p: float, seed: int) -> None:
        """Take a temperature above 0, a share from 0 to 1, and any integer."""
        self._temperature, self._top_p = temperature, top_p
        self._generator = torch.Generator().manual_seed(seed % 2**63)

    def draw(self, logits: torch.Tensor) -> int:
        """Return a token, given the logits [vocabulary] of one position."""
        scaled = logits.float() / self._temperature
        probabilities, tokens = self._nucleus(scaled)
        sums = probabilities.double().cumsum(-1)
        point = torch.rand(1, generator=self._generator, dtype=torch.float64) * sums[-1]
        place = int(torch.searchsorted(sums, point, right=True))
        place = min(place, len(sums) - 1)
        return place if tokens is None else int(tokens[place])

    def _nucleus(self, scaled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return probabilities, on the CPU, and their tokens; None for all of them in their own order."""
        if self._top_p == 1:
            return scaled.softmax(-1).cpu(), None
        top, tokens = scaled.topk(min(_LIKELIEST, len(scaled)))
        likeliest = (top - scaled.logsumexp(-1)).exp().cpu()
        if likeliest.double().sum() < self._top_p and len(scaled) > _LIKELIEST:
            top, tokens = scaled.sort(descending=True, stable=True)
            likeliest = (top - scaled.logsumexp(-1)).exp().cpu()
        before = likeliest.double().cumsum(-1) - likeliest
        return likeliest * (before < self._top_p), tokens


def logprobs_of(logits: torch.Tensor, token: int, *, top: int) -> tuple[float, list[tuple[int, float]]]:
    """Return the log-probability of a token, and (token, log-probability) of the likeliest ones.

    Args:
        logits: [vocabulary] of one position.
        token: The chosen one.
        top: How many others to return.
    """
    scores = logits.float()
    norm = float(scores.logsumexp(-1))
    values, tokens = scores.topk(min(top, len(scores)))
    likeliest = [(number, value - norm) for number, value in zip(tokens.tolist(), values.tolist(), strict=True)]
    chosen = float(scores[token]) - norm
    return (chosen if math.isfinite(chosen) else -9999.0), likeliest
