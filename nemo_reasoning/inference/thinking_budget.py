"""Keep a model's thinking within exact limits while it writes."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.inference.transcript import Transcript
from nemo_reasoning.reasoning.tags import THINK_CLOSE, THINK_OPEN

WAIT = "Wait"
_ANSWER_SHARE, _ANSWER_TOKENS = 4, 512


@dataclass(frozen=True, slots=True)
class ForcedTokens:
    """Tokens that an engine puts into a model's mouth.

    Attributes:
        opening: The opening tag and the end of its line.
        closings: What is missing to close a block when the first 0, 1, 2, ... characters of the tag stand.
        wait: What makes a model think on.
        newline: The end of a line.
    """

    opening: tuple[int, ...]
    closings: tuple[tuple[int, ...], ...]
    wait: tuple[int, ...]
    newline: tuple[int, ...]

    @property
    def longest_closing(self) -> int:
        """Most tokens it takes to close a block."""
        return max(map(len, self.closings))


def forced_tokens(encode: Callable[[str], Sequence[int]], decode: Callable[[Sequence[int]], str]) -> ForcedTokens:
    """Encode the forced_tokens with a tokenizer that adds no special tokens."""

    def within(text: str) -> tuple[int, ...]:
        # Some tokenizers put a space before the first word of a text, but not in the middle of one.
        for before in (".", "\n", "a"):
            start, whole = list(encode(before)), list(encode(before + text))
            if whole[: len(start)] == start and decode(whole) == decode(start) + text:
                return tuple(whole[len(start) :])
        return tuple(encode(text))

    return ForcedTokens(
        opening=within(f"{THINK_OPEN}\n"),
        closings=tuple(within(f"{THINK_CLOSE[size:]}\n\n") for size in range(len(THINK_CLOSE))),
        wait=within(WAIT),
        newline=within("\n"),
    )


class TokenDecision(Enum):
    """On a token the model wants to write."""

    accept = auto()
    refuse = auto()
    replace = auto()


class ThinkingBudget:
    """The limits on one request's thinking, and what the engine has to write to keep them.

    A token counts as thinking if its first character stands between the tags. Tokens of a tag never
    count, nor do those that the engine writes to close a block.

    Attributes:
        forced: Tokens to write before the model may go on.
    """

    def __init__(self, request: GenerationRequest, *, forced_tokens: ForcedTokens, transcript: Transcript) -> None:
        """Take the request and what is written for it, which must be empty."""
        self._forced_tokens, self._transcript = forced_tokens, transcript
        self._budget, self._least = request.thinking_budget, request.min_thinking
        self._limit = request.max_new_tokens
        self._may_open = request.mode == "on"
        self._reserve = forced_tokens.longest_closing + max(1, min(self._limit // _ANSWER_SHARE, _ANSWER_TOKENS))
        self._closing = False
        self.forced: deque[int] = deque()
        fits = self._limit > len(forced_tokens.opening) + self._reserve
        if self._least and fits and not transcript.scanner.thinking:
            self.forced.extend(forced_tokens.opening)
        self.wrote()

    @property
    def _left(self) -> int:
        return self._limit - len(self._transcript.tokens)

    def judge(self, token: int, *, ends: bool) -> TokenDecision:
        """Say whether the model may write a token; the decision "replace" puts others into `forced`.

        Args:
            token: What the model has chosen.
            ends: Whether it ends the turn.
        """
        scanner = self._transcript.scanner
        joined = scanner.pending + ("" if ends else self._transcript.peek(token))
        if scanner.thinking:
            return self._judge_thinking(joined, ends=ends)
        if THINK_OPEN in joined:
            refused = not self._may_think_after(joined.partition(THINK_OPEN)[0])
        else:  # a closing tag too many says nothing: the parser drops it
            silent = not joined.replace(THINK_CLOSE, "").strip()
            refused = self._transcript.blank and (ends or (self._left <= 1 and silent))
        return TokenDecision.refuse if refused else TokenDecision.accept

    def _may_think_after(self, text: str) -> bool:
        first = self._transcript.blank and not text.strip() and not self._transcript.scanner.blocks
        return self._may_open and first and self._left > self._reserve

    def _judge_thinking(self, joined: str, *, ends: bool) -> TokenDecision:
        at = len(joined) if ends else joined.find(THINK_CLOSE)
        if at < 0:
            return TokenDecision.refuse if THINK_OPEN in joined else TokenDecision.accept
        scanner = self._transcript.scanner
        start = scanner.position - len(scanner.pending)
        short = self._transcript.count(scanner.block_start, start + at) < self._least
        if not short and not ends:
            return TokenDecision.accept
        if short:
            self._transcript.take_back(start if ends else start + at)
            self.forced.extend(self._forced_tokens.wait)
        else:
            self._close()
        return TokenDecision.replace

    def wrote(self) -> None:
        """Intervene, if need be, after a token was written."""
        scanner = self._transcript.scanner
        if not scanner.thinking:
            self._closing = False
        elif not self._closing:
            used = self._transcript.count(scanner.block_start, scanner.position + 1)
            if self._left <= self._reserve or (self._budget is not None and used >= self._budget):
                self._close()
            elif self._budget is not None and 0 < used == self._budget - 1 and not self.forced:
                self._end_line()

    def _close(self) -> None:
        self._transcript.flush()
        scanner = self._transcript.scanner
        pending = scanner.pending
        # A tag the model has begun is finished, unless its tokens are needed as thinking.
        short = self._transcript.count(scanner.block_start, scanner.position - len(pending)) < self._least
        begun = len(pending) if THINK_CLOSE.startswith(pending) and not short else 0
        self.forced = deque(self._forced_tokens.closings[begun])
        self._closing = True

    def _end_line(self) -> None:
        """Spend the last token of the budget on the newline that the tag stands behind in training."""
        transcript = self._transcript
        if not transcript.scanner.pending and not transcript.ends_line and len(self._forced_tokens.newline) == 1:
            self.forced.extend(self._forced_tokens.newline)
