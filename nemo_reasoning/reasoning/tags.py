"""The tags around a trace: written, and read from text that comes in pieces.

A tag counts only where it can stand: the opening one as the first word of a text, the closing one where it
ends that block. All that follows is the answer, character for character, whatever tags it mentions.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from nemo_reasoning.reasoning.messages import Mode

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_CLOSE_LINE = re.compile(rf"(?:\A|\n)[ \t]*{re.escape(THINK_CLOSE)}[ \t]*(?:\n|\Z)")


def with_thinking(trace: str, answer: str) -> str:
    """Return an assistant turn that thinks: the format every part of the package relies on."""
    return f"{THINK_OPEN}\n{trace.strip()}\n{THINK_CLOSE}\n\n{answer.strip()}"


class Parts(NamedTuple):
    """Text to append to the two things a model says."""

    reasoning: str = ""
    answer: str = ""


def partial_suffix(text: str, words: Sequence[str]) -> str:
    """Return the longest end of `text` that may become one of `words` when more text follows."""
    longest = min(len(text), max(map(len, words), default=1) - 1)
    for start in range(len(text) - longest, len(text)):
        if any(word.startswith(text[start:]) for word in words):
            return text[start:]
    return ""


class ThinkingParser:
    """Divides text that comes in pieces into reasoning and answer, without the tags of the block.

    What it returns, joined, depends on the text alone and not on how it was cut into pieces. White space at
    the ends of the reasoning and before the answer belongs to the format, and is dropped.

    Attributes:
        text: All of it so far.
        state: Where its end stands: before a block or answer, in the block, or behind it.
        block_start: Where the content of the block begins, in characters.
        block_end: Where it ends; 0 while it is open.
        answer_start: Where the answer begins, once it has begun.
    """

    def __init__(self, prefix: str = "", *, tags: bool = True) -> None:
        """Start a text.

        Args:
            prefix: Beginning of the text that stands already, such as an opening tag in the prompt; it is read
                and not returned.
            tags: False takes everything for the answer.
        """
        self.text = ""
        self.state: Literal["start", "thinking", "answer"] = "start" if tags else "answer"
        self.block_start = self.block_end = self.answer_start = 0
        self._answered = not tags
        self._region = 0  # behind the block
        self._read(prefix)
        self._said = len(prefix)
        self._reasoned = self.thinking and bool(prefix[self.block_start :].strip())

    @property
    def thinking(self) -> bool:
        """Whether the text ends within the block."""
        return self.state == "thinking"

    @property
    def blank(self) -> bool:
        """Whether no answer has begun."""
        return not self._answered

    @property
    def pending(self) -> str:
        """End of the text that is not told apart yet, because it may be, or become, a tag."""
        if self.thinking:
            return partial_suffix(self.text[self.block_start :], (THINK_CLOSE,))
        return "" if self._answered else self.text[self._region :]

    def push(self, text: str) -> Parts:
        """Take the next piece of text, and return what is certain by now."""
        self._read(text)
        return self._news(len(self.text) - len(self.pending))

    def finish(self) -> Parts:
        """Return what was held back; the text has ended."""
        if not self.thinking:
            self.state = "answer"
            if not self._answered and (head := self._head):
                self._answer(head)
        return self._news(len(self.text))

    def rewind(self, length: int) -> None:
        """Forget what is pending from a number of characters on."""
        self.text = self.text[:length]

    @property
    def _head(self) -> str:
        return self.text[self._region :].lstrip()

    def _read(self, text: str) -> None:
        self.text += text
        if self.state == "start" and self._head.startswith(THINK_OPEN):
            self.state, self.block_start = "thinking", self.text.index(THINK_OPEN) + len(THINK_OPEN)
        if self.thinking:
            start = max(self.block_start, len(self.text) - len(text) - len(THINK_CLOSE))
            place = self.text.find(THINK_CLOSE, start)
            if place >= 0:
                self.state, self.block_end, self._region = "answer", place, place + len(THINK_CLOSE)
        if not (self.thinking or self._answered):
            head = self._head
            if head and not any(tag.startswith(head) for tag in (THINK_OPEN, THINK_CLOSE)):
                self._answer(head)

    def _answer(self, head: str) -> None:
        self.state, self._answered = "answer", True
        self.answer_start = len(self.text) - len(head)

    def _news(self, end: int) -> Parts:
        """Return what is new up to a character that is told apart."""
        reasoning = ""
        if self.block_start and self._said <= (last := self.block_end or end):
            reasoning = self._reasoning(self.text[max(self._said, self.block_start) : last])
        answer = self.text[max(self._said, self.answer_start) : end] if self._answered else ""
        if answer:
            self._said = end
        return Parts(reasoning, answer)

    def _reasoning(self, text: str) -> str:
        begin = max(self._said, self.block_start)
        if not self._reasoned:
            begin += len(text) - len(text.lstrip())
        said = text.rstrip() if self._reasoned else text.strip()
        if said:
            self._reasoned, self._said = True, begin + len(said)
        return said


class Split(NamedTuple):
    """A model's text, divided.

    Attributes:
        reasoning: What stands in the thinking block, without tags.
        answer: What stands after it; empty if the thinking never ends.
        well_formed: Whether the text has the format its mode asks for.
    """

    reasoning: str
    answer: str
    well_formed: bool


def split_thinking(text: str, mode: Mode, *, finished: bool = True, prefilled: bool | None = None) -> Split:
    """Divide what the model wrote into reasoning and answer, as `ThinkingParser` divides a stream of it.

    Well-formed with thinking on: a block at the very start, then an answer that opens no other. Off: an answer
    and no block.

    Args:
        text: The whole completion.
        mode: What the model was asked for.
        finished: Whether the model ended by itself; a text cut at a token limit is never well-formed.
        prefilled: Whether the prompt has opened the thinking block already; None where only the text can tell.
    """
    if prefilled is None:
        prefilled = _opened_before(text, mode, finished=finished)
    parser = ThinkingParser(THINK_OPEN if prefilled else "")
    start, end = parser.push(text), parser.finish()
    reasoning, answer = start.reasoning + end.reasoning, start.answer + end.answer
    expected = bool(parser.block_start) == (mode == "on") and not answer.startswith((THINK_OPEN, THINK_CLOSE))
    return Split(reasoning, answer, finished and expected and bool(answer.strip()))


def _opened_before(text: str, mode: Mode, *, finished: bool) -> bool:
    """Guess whether a text continues a block: it closes one that it has not opened, or was cut before it could.

    Without thinking, only a closing tag on a line of its own counts: an answer may mention the tag.
    """
    if text.lstrip().startswith(THINK_OPEN):
        return False
    if mode == "off":
        return _CLOSE_LINE.search(text) is not None
    return THINK_CLOSE in text or not finished
