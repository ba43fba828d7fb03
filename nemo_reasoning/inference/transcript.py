"""What has been written for one request: its tokens, and the text they make."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

from nemo_reasoning.inference.detokenizer import Detokenizer
from nemo_reasoning.reasoning.tags import Parts, TagScanner, ThinkParser


class Transcript:
    """Tokens of a completion with the place of each in its text.

    Attributes:
        tokens: Those that were not taken back.
        text: All that is certain by now, tags included.
        blank: Whether there is no answer yet.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], *, thinking: bool, raw: bool) -> None:
        """Take how to decode tokens, whether the prompt has opened a block, and whether to ignore all tags."""
        self._detokenizer = Detokenizer(decode)
        self._parser = ThinkParser(thinking=thinking)
        self._raw = raw
        self._starts: list[int] = []  # where in the text, in characters, each token begins
        self._parts: list[Parts] = []
        self.tokens: list[int] = []
        self.text = ""
        self.blank = True

    @property
    def scanner(self) -> TagScanner:
        """Where in the text the parser is."""
        return self._parser.scanner

    @property
    def ends_line(self) -> bool:
        """Whether the text ends with a newline."""
        return self.text.endswith("\n")

    @property
    def thinking_tokens(self) -> int:
        """Tokens whose first character stands in a thinking block."""
        scanner = self.scanner
        unfinished = [(scanner.block_start, scanner.position + 1)] if scanner.thinking else []
        return sum(self.count(start, end) for start, end in [*scanner.blocks, *unfinished])

    def in_answer(self, place: int) -> bool:
        """Say whether the token at a place belongs to the answer; true of the latest ones only."""
        scanner = self.scanner
        return not scanner.thinking and self._starts[place] >= scanner.tag_end

    def count(self, start: int, end: int) -> int:
        """Return how many tokens begin between two characters, the second excluded."""
        return bisect_left(self._starts, end) - bisect_left(self._starts, start)

    def peek(self, token: int) -> str:
        """Return the text that a token would add."""
        return self._detokenizer.peek(token)

    def push(self, token: int) -> None:
        """Append a token."""
        self._starts.append(self.scanner.position)
        self.tokens.append(token)
        self._read(self._detokenizer.push(token))

    def flush(self) -> None:
        """Settle for replacement characters where bytes of a character are missing."""
        self._read(self._detokenizer.flush())

    def _read(self, text: str) -> None:
        self.text += text
        self._note(Parts(answer=text) if self._raw else self._parser.push(text))

    def _note(self, parts: Parts) -> None:
        self.blank = self.blank and not parts.answer
        self._parts.append(parts)

    def take_back(self, position: int) -> None:
        """Remove the tokens that begin at a character of an unfinished tag, or after it."""
        kept = bisect_left(self._starts, position)
        if kept == len(self.tokens):
            return
        end = self._starts[kept]
        self.text = self.text[: len(self.text) - (self.scanner.position - end)]
        self.scanner.rewind(end)
        self._detokenizer.truncate(kept)
        del self.tokens[kept:], self._starts[kept:]

    def finish(self) -> None:
        """Take what was held back for text: nothing follows."""
        self.flush()
        if not self._raw:
            self._note(self._parser.finish())

    def collect(self) -> Parts:
        """Return what became certain since the last call."""
        parts, self._parts = self._parts, []
        return Parts("".join(part.reasoning for part in parts), "".join(part.answer for part in parts))
