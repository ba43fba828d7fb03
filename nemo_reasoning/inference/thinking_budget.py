"""Keep a model's thinking within exact limits while it writes."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from nemo_reasoning.inference.detokenizer import Transcript
from nemo_reasoning.inference.request import GenerationRequest
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
    refuse = auto()  # another one, in its place
    retract = auto()  # the beginning of a tag that must not stand is gone; another one in the place where it began
    replace = auto()  # forced tokens come first


class ThinkingBudget:
    """The limits on one request's thinking, and what the engine has to write to keep them.

    With thinking off, no block is opened, and one that the prompt has opened is closed at once. With thinking
    on, a block is closed within its budget, and in time to leave room for an answer. Either way an answer
    follows. A token counts as thinking if its first character stands between the tags. Tokens of a tag never
    count, nor do those that the engine writes to close a block.

    Attributes:
        forced: Tokens to write before the model may go on.
        closed: Whether the engine has ended the thinking, rather than the model.
    """

    def __init__(self, request: GenerationRequest, *, forced_tokens: ForcedTokens, transcript: Transcript) -> None:
        """Take the request and what is written for it, which must be empty."""
        self._forced_tokens, self._transcript = forced_tokens, transcript
        self._may_open = request.mode == "on"
        self._budget, self._least = request.thinking_budget if self._may_open else 0, request.min_thinking
        self._limit = request.max_new_tokens
        self._reserve = forced_tokens.longest_closing + max(1, min(self._limit // _ANSWER_SHARE, _ANSWER_TOKENS))
        self._closing = self.closed = False
        self.forced: deque[int] = deque()
        self._formed = request.schema is not None  # then the block is opened and left by the engine, or not at all
        fits = self._may_open and self._limit > len(forced_tokens.opening) + self._reserve
        if (self._least or self._formed) and fits and transcript.parser.state == "start":
            self.forced.extend(forced_tokens.opening)
        self.wrote()

    @property
    def _left(self) -> int:
        return self._limit - len(self._transcript.tokens)

    @property
    def undecided(self) -> bool:
        """Whether neither a block nor an answer has begun, and the next token may begin one."""
        parser = self._transcript.parser
        return parser.blank and not parser.thinking and not parser.pending.strip()

    def judge(self, token: int, *, ends: bool) -> TokenDecision:
        """Say whether the model may write a token; the decision "replace" puts others into `forced`.

        Args:
            token: What the model has chosen.
            ends: Whether it ends the turn.
        """
        parser = self._transcript.parser
        text = "" if ends else self._transcript.peek(token)
        if parser.thinking:
            return self._judge_thinking(parser.pending + text, ends=ends)
        if not parser.blank:
            return TokenDecision.accept
        head = (parser.pending + text).lstrip()
        may_open = self._may_open and not self._formed
        if head.startswith(THINK_OPEN) and may_open and parser.state == "start" and self._left > self._reserve:
            return TokenDecision.accept
        if head.startswith((THINK_OPEN, THINK_CLOSE)):
            return TokenDecision.refuse if self.undecided else TokenDecision.retract
        if not (ends or self._left <= 1):
            return TokenDecision.accept
        if not head:
            return TokenDecision.refuse
        half = len(head) > 1 and any(tag.startswith(head) for tag in (THINK_OPEN, THINK_CLOSE))
        return TokenDecision.retract if half and not self.undecided else TokenDecision.accept

    def _judge_thinking(self, joined: str, *, ends: bool) -> TokenDecision:
        at = len(joined) if ends else joined.find(THINK_CLOSE)
        if at < 0:
            return TokenDecision.accept
        parser = self._transcript.parser
        start = len(parser.text) - len(parser.pending)
        short = self._transcript.count(parser.block_start, start + at) < self._least
        if not short and not ends:
            answers = bool(joined[at + len(THINK_CLOSE) :].strip())
            return TokenDecision.refuse if answers and self._formed else TokenDecision.accept
        if short:
            self._transcript.take_back(start if ends else start + at)
            self.forced.extend(self._forced_tokens.wait)
        else:
            self._close()
        return TokenDecision.replace

    def wrote(self) -> None:
        """Intervene, if need be, after a token was written."""
        parser = self._transcript.parser
        if not parser.thinking:
            if self._formed and not self.forced and parser.block_end and parser.blank:
                lines = parser.text.count("\n", parser.block_end)
                self.forced.extend(self._forced_tokens.newline * (2 - lines))
            self._closing = False
        elif not self._closing:
            used = self._transcript.thinking_tokens
            if self._left <= self._reserve or (self._budget is not None and used >= self._budget):
                self.closed = True
                self._close()
            elif self._budget is not None and 0 < used == self._budget - 1 and not self.forced:
                self._end_line()

    def _close(self) -> None:
        self._transcript.flush()
        parser = self._transcript.parser
        pending = parser.pending
        # A tag the model has begun is finished, unless its tokens are needed as thinking.
        short = self._transcript.count(parser.block_start, len(parser.text) - len(pending)) < self._least
        begun = 0 if short else len(pending)
        self.forced = deque(self._forced_tokens.closings[begun])
        self._closing = True

    def _end_line(self) -> None:
        """Spend the last token of the budget on the newline that the tag stands behind in training."""
        parser = self._transcript.parser
        if not parser.pending and not parser.text.endswith("\n") and len(self._forced_tokens.newline) == 1:
            self.forced.extend(self._forced_tokens.newline)
