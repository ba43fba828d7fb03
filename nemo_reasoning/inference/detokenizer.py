"""Turn tokens into text one at a time, divide it, and find stop strings in it."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from nemo_reasoning.inference.request import Part
from nemo_reasoning.reasoning.tags import Parts, ThinkingParser, partial_suffix

_REPLACEMENT = "\ufffd"
_CONTEXT = 4  # tokens before the new ones: sentencepiece decodes the first token of a text unlike the others


class Detokenizer:
    """Decodes tokens as they come, and holds back those that do not make a whole character yet.

    The pieces, joined, are what decoding all tokens at once gives.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        """Take the function that decodes a list of tokens."""
        self._decode = decode
        self._tokens: list[int] = []
        self._start = self._read = 0
        self._before = ""
        self._peeked: tuple[int, str] | None = None

    def peek(self, token: int) -> str:
        """Return what `push` would return."""
        if self._peeked is None or self._peeked[0] != token:
            text = self._decode([*self._tokens[self._start :], token])
            self._peeked = (token, "" if text.endswith(_REPLACEMENT) else text[len(self._before) :])
        return self._peeked[1]

    def push(self, token: int) -> str:
        """Take a token and return the text that is certain by now."""
        text = self.peek(token)
        self._tokens.append(token)
        self._peeked = None
        if text:
            self._settle(self._read)
        return text

    def flush(self) -> str:
        """Return the text of what was held back, replacement characters for broken ones."""
        text = self._decode(self._tokens[self._start :])[len(self._before) :]
        self._settle(self._read)
        self._peeked = None
        return text

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first `length`, whose text has been returned already."""
        del self._tokens[length:]
        self._settle(max(length - _CONTEXT, 0))
        self._peeked = None

    def _settle(self, start: int) -> None:
        self._start, self._read = start, len(self._tokens)
        self._before = self._decode(self._tokens[start:])


class StopFinder:
    """Finds the first of some strings in text that comes in pieces: the one that ends first.

    What it returns, joined, depends on the text alone and not on how it was cut into pieces.

    Attributes:
        found: Whether one was found; nothing is returned from then on.
    """

    def __init__(self, words: Sequence[str]) -> None:
        """Take the strings to stop at, none of them empty; there may be none."""
        self._words = tuple(words)
        self._held = ""
        self._returned = 0
        self.found = False

    def push(self, text: str) -> str:
        """Return the text that stands before any of the strings for certain."""
        if self.found:
            return ""
        text = self._held + text
        ends = [(place + len(word), place) for word in self._words if (place := text.find(word)) >= 0]
        self.found = bool(ends)
        held = "" if ends or not self._words else partial_suffix(text, self._words)
        text = text[: min(ends)[1]] if ends else text[: len(text) - len(held)]
        self._held = held
        self._returned += len(text)
        return text

    def finish(self) -> str:
        """Return what was held back; the text has ended."""
        held, self._held = self._held, ""
        self._returned += len(held)
        return held

    def before(self, text: str) -> str:
        """Return the part of the whole text, as it was pushed, that stands before what was found."""
        return text[: self._returned] if self.found else text


class Transcript:
    """What is written for one request: its tokens, the text they make, and where in it each token begins.

    Reasoning, answer, stop strings and counts are read from this one text.

    Attributes:
        tokens: Those that were not taken back.
        parser: Divides the text; `parser.text` begins with `prefix`.
        said: Reasoning and answer that are certain by now, the answer before any stop string.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], *, prefix: str = "", tags: bool = True, stop: Sequence[str] = ()
    ) -> None:
        """Start a completion.

        Args:
            decode: Turns tokens into text.
            prefix: What the prompt lets the model continue: an opening tag, or the beginning of its answer.
            tags: Whether the text may hold a thinking block.
            stop: Strings that end the answer.
        """
        self._detokenizer = Detokenizer(decode)
        self.parser = ThinkingParser(prefix, tags=tags)
        self._stop = StopFinder(stop)
        self._prefix = len(prefix)
        self._starts: list[int] = []  # where in the text, in characters, each token begins
        self._news = Parts()
        self.tokens: list[int] = []
        self.said = Parts()

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self._stop.found

    @property
    def text(self) -> str:
        """All that is certain by now, tags included, before any stop string."""
        return self.parser.text[self._prefix : self._answer_end if self.stopped else None]

    @property
    def thinking_tokens(self) -> int:
        """Tokens whose first character stands in the thinking block."""
        end = len(self.parser.text) + 1 if self.parser.thinking else self.parser.block_end
        return self.count(self.parser.block_start, end)

    @property
    def _answer_start(self) -> int:
        return max(self._prefix, self.parser.answer_start)

    @property
    def _answer_end(self) -> int:
        return self._answer_start + len(self.said.answer)

    def count(self, start: int, end: int) -> int:
        """Return how many tokens begin between two characters, the second excluded."""
        return max(bisect_left(self._starts, end) - bisect_left(self._starts, start), 0)

    def is_said(self, number: int) -> bool:
        """Whether all text of a token is certain, and its part known."""
        if self.stopped:
            return True
        reached = len(self.parser.text) - len(self.parser.pending) if self.parser.blank else self._answer_end
        return self._span(number)[1] <= reached

    def _span(self, number: int) -> tuple[int, int]:
        end = self._starts[number + 1] if number + 1 < len(self._starts) else len(self.parser.text)
        return self._starts[number], end

    def part(self, number: int) -> tuple[Part, str]:
        """Return which part of the completion a token belongs to, and what it adds to that part."""
        start, end = self._span(number)
        if not self.parser.blank and (end > self._answer_start or start == end >= self._answer_start):
            return "answer", self.parser.text[max(start, self._answer_start) : min(end, self._answer_end)]
        inside = self.parser.block_start <= start and (self.parser.thinking or start < self.parser.block_end)
        return ("thinking" if inside and self.parser.block_start else "tag"), self.parser.text[start:end]

    def peek(self, token: int) -> str:
        """Return the text that a token would add."""
        return self._detokenizer.peek(token)

    def push(self, token: int) -> None:
        """Append a token."""
        self._starts.append(len(self.parser.text))
        self.tokens.append(token)
        self._note(self.parser.push(self._detokenizer.push(token)))

    def flush(self) -> None:
        """Settle for replacement characters where bytes of a character are missing."""
        self._note(self.parser.push(self._detokenizer.flush()))

    def take_back(self, position: int) -> None:
        """Remove the tokens that begin at a character of what is pending, or after it."""
        self._truncate(bisect_left(self._starts, position))

    def retract(self) -> int | None:
        """Remove the tokens of a tag that has begun before any answer, and return the first; None if there is none."""
        head = self.parser.pending.lstrip()
        kept = bisect_right(self._starts, len(self.parser.text) - len(head)) - 1
        if not head or kept < 0:
            return None
        first = self.tokens[kept]
        self._truncate(kept)
        return first

    def _truncate(self, kept: int) -> None:
        if kept < len(self.tokens):
            self.parser.rewind(self._starts[kept])
            self._detokenizer.truncate(kept)
            del self.tokens[kept:], self._starts[kept:]

    def finish(self) -> None:
        """Take what was held back for text: nothing follows."""
        self.flush()
        self._note(self.parser.finish())
        self._say(Parts(answer=self._stop.finish()))

    def _note(self, parts: Parts) -> None:
        self._say(Parts(parts.reasoning, self._stop.push(parts.answer)))

    def _say(self, parts: Parts) -> None:
        self.said = Parts(self.said.reasoning + parts.reasoning, self.said.answer + parts.answer)
        self._news = Parts(self._news.reasoning + parts.reasoning, self._news.answer + parts.answer)

    def collect(self) -> Parts:
        """Return what became certain since the last call."""
        news, self._news = self._news, Parts()
        return news
