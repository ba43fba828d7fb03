"""Pick tokens from logits."""

from collections import Counter
from collections.abc import Collection, Sequence

import torch

from nemo_reasoning.reasoning.sampling import Sampling

_COLDEST = 1e-6  # below, quotients leave float32
LOWEST = -9999.0  # a log-probability that is told in place of minus infinity, which JSON cannot hold
_LIKELIEST = 256  # a nucleus has rarely more tokens, and finding them is much cheaper than sorting all


class Sampler:
    """Picks tokens, with a random generator of its own.

    Penalties come first, then the temperature, then `top_k`, `top_p` and `min_p`, each among the tokens that the
    one before it leaves. Random numbers come from the CPU, so that a seed draws the same on every device that
    computes the same logits, whatever else is in the batch.
    """

    def __init__(self, sampling: Sampling, *, seed: int, prompt: Collection[int] = ()) -> None:
        """Take how to draw, any integer as seed, and the tokens of the prompt, which a repetition penalty counts."""
        self._sampling = sampling
        self._generator = torch.Generator().manual_seed(seed % 2**63)
        self._prompt = frozenset(prompt) if sampling.repetition_penalty != 1 else frozenset()

    @property
    def changes_logits(self) -> bool:
        """Whether what was written before changes the logits."""
        return self._sampling.penalizes

    def penalize(self, logits: torch.Tensor, written: Sequence[int]) -> torch.Tensor:
        """Return the logits [vocabulary] with the penalties for the tokens written so far."""
        sampling, scores = self._sampling, logits.float().clone()
        counts = Counter(written)
        if seen := sorted(self._prompt | counts.keys() if sampling.repetition_penalty != 1 else ()):
            places = torch.tensor(seen, device=scores.device)
            old, penalty = scores[places], sampling.repetition_penalty
            scores[places] = torch.where(old > 0, old / penalty, old * penalty)
        if counts:
            places = torch.tensor(list(counts), device=scores.device)
            times = torch.tensor(list(counts.values()), device=scores.device)
            scores[places] -= sampling.presence_penalty + sampling.frequency_penalty * times
        return scores

    def draw(self, logits: torch.Tensor, likeliest: int) -> int:
        """Return a token, given the logits [vocabulary] of one position and the first token with the highest."""
        if self._sampling.temperature == 0:
            return likeliest
        scaled = logits.float() / max(self._sampling.temperature, _COLDEST)
        probabilities, tokens = self._candidates(scaled)
        sums = probabilities.double().cumsum(-1)
        point = torch.rand(1, generator=self._generator, dtype=torch.float64) * sums[-1]
        place = int(torch.searchsorted(sums, point, right=True))
        place = min(place, len(sums) - 1)
        return place if tokens is None else int(tokens[place])

    def _candidates(self, scaled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return probabilities, on the CPU, and their tokens; None for all of them in their own order."""
        sampling, size = self._sampling, len(scaled)
        if sampling.top_p == 1 and not sampling.top_k and not sampling.min_p:
            return scaled.softmax(-1).cpu(), None
        top, tokens = scaled.topk(min(sampling.top_k or _LIKELIEST, size))
        norm = top if sampling.top_k else scaled
        likeliest = (top - norm.logsumexp(-1)).exp().cpu()
        if not sampling.top_k and size > _LIKELIEST and not self._enough(likeliest):
            top, tokens = scaled.sort(descending=True, stable=True)
            likeliest = (top - norm.logsumexp(-1)).exp().cpu()
        before = likeliest.double().cumsum(-1) - likeliest
        kept = (before < sampling.top_p) & (likeliest >= sampling.min_p * likeliest[0])
        return likeliest * kept, tokens

    def _enough(self, likeliest: torch.Tensor) -> bool:
        """Say whether no token beyond the likeliest ones, in descending order, could be drawn."""
        rare = bool(likeliest[-1] < self._sampling.min_p * likeliest[0])
        return rare or (self._sampling.top_p < 1 and float(likeliest.double().sum()) >= self._sampling.top_p)


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
    likeliest = [
        (number, max(value - norm, LOWEST)) for number, value in zip(tokens.tolist(), values.tolist(), strict=True)
    ]
    return max(float(scores[token]) - norm, LOWEST), likeliest
