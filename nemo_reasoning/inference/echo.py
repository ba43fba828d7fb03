"""Log-probabilities of a prompt, as the model reads it."""

import math
from collections.abc import Callable, Sequence

import torch

from nemo_reasoning.inference.detokenizer import Detokenizer
from nemo_reasoning.inference.hf.sampling import LOWEST
from nemo_reasoning.inference.request import Alternative, TokenLogprob

_POSITIONS = 128  # whose logits are computed at a time


class PromptEcho:
    """Repeats the tokens of a prompt, and how likely each was after those before it."""

    def __init__(self, prompt: Sequence[int], *, decode: Callable[[Sequence[int]], str], top: int) -> None:
        """Take the tokens, what turns tokens into text, and how many likeliest ones to report at each place."""
        self._prompt, self._decode, self._top = prompt, decode, top
        self._rest = Detokenizer(decode)
        self._entries = [TokenLogprob(self._rest.push(prompt[0]), math.nan, "prompt", ())]

    def read(self, hidden: torch.Tensor, lm_head: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Take the last hidden states [positions, size] of the next tokens of the prompt."""
        for piece in torch.split(hidden, _POSITIONS):
            following = self._prompt[len(self._entries) : len(self._entries) + len(piece)]
            if following:
                self._note(following, lm_head(piece[: len(following)]).float().log_softmax(-1).clamp(min=LOWEST))

    def _note(self, tokens: Sequence[int], logprobs: torch.Tensor) -> None:
        chosen = logprobs[torch.arange(len(tokens)), torch.tensor(tokens)].tolist()
        values, places = logprobs.topk(self._top)
        for token, logprob, likeliest in zip(
            tokens, chosen, zip(places.tolist(), values.tolist(), strict=True), strict=True
        ):
            top = tuple(Alternative(self._decode([place]), value) for place, value in zip(*likeliest, strict=True))
            self._entries.append(TokenLogprob(self._rest.push(token), logprob, "prompt", top))

    @property
    def entries(self) -> tuple[TokenLogprob, ...]:
        """Every token of the prompt; the first follows nothing, and its log-probability is not a number."""
        return tuple(self._entries)
