"""The tags around a trace: written, and read from text that comes in pieces."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nemo_reasoning.reasoning.messages import Mode

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_TAG = re.compile(f"{re.escape(THINK_OPEN)}|{re.escape(THINK_CLOSE)}")


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


class TagScanner:
    """Finds `<think>` and `</think>` in text that comes in pieces.

    An opening tag begins thinking and a closing one ends it, whatever stands before; a tag that changes
    nothing (an opening one while thinking, a closing one in the answer) is dropped.

    Attributes:
        thinking: Whether the text after the last whole tag is thinking.
        pending: End of the text so far that may be the beginning of a tag.
        position: Characters seen, `pending` included.
        block_start: Where, in characters, the content of the last thinking block begins.
        tag_end: Where the last whole tag ends.
        blocks: Where the content of each closed thinking block begins and ends.
    """

    def __init__(self, *, thinking: bool) -> None:
        """Start in the answer, or in the thinking if the prompt has opened it already."""
        self.thinking = thinking
        self.pending = ""
        self.position = self.block_start = self.tag_end = 0
        self.blocks: list[tuple[int, int]] = []

    def push(self, text: str) -> Iterator[tuple[bool, str]]:
        """Yield (is thinking, text) of each section that `text` adds to; one at least, possibly empty."""
        start = self.position - len(self.pending)
        text = self.pending + text
        self.position, used = start + len(text), 0
        for tag in _TAG.finditer(text):
            yield self.thinking, text[used : tag.start()]
            used = tag.end()
            self._turn(opens=tag[0] == THINK_OPEN, start=start + tag.start(), end=start + used)
        self.pending = partial_suffix(text[used:], (THINK_OPEN, THINK_CLOSE))
        yield self.thinking, text[used : len(text) - len(self.pending)]

    def _turn(self, *, opens: bool, start: int, end: int) -> None:
        if opens and not self.thinking:
            self.block_start = end
        if self.thinking and not opens:
            self.blocks.append((self.block_start, start))
        self.tag_end, self.thinking = end, opens

    def flush(self) -> tuple[bool, str]:
        """Return (is thinking, text) of what was held back: the text has ended, so it is no tag."""
        held, self.pending = self.pending, ""
        return self.thinking, held

    def rewind(self, position: int) -> None:
        """Forget the end of what is pending, from `position` on."""
        self.pending = self.pending[: len(self.pending) - (self.position - position)]
        self.position = position


class _Channel:
    """Joins sections of text by a newline, each without white space at its ends, none of them empty."""

    def __init__(self) -> None:
        self._space = ""
        self._begun = self._written = False

    def push(self, text: str) -> str:
        body = text.strip()
        if not body:
            self._space += text
            return ""
        lead = self._space + text[: len(text) - len(text.lstrip())] if self._begun else "\n" * self._written
        self._space = text[len(text.rstrip()) :]
        self._begun = self._written = True
        return lead + body

    def close_section(self) -> None:
        self._space, self._begun = "", False


class ThinkParser:
    """Divides streamed text into reasoning and answer, without their tags.

    What it returns, joined, depends on the text alone and not on how it was cut into pieces. The sections
    of one kind are joined by a newline, and white space at their ends is dropped.

    Attributes:
        scanner: Where in the text the parser is.
    """

    def __init__(self, *, thinking: bool = False) -> None:
        """Start in the answer, or in the thinking if the prompt has opened it already."""
        self.scanner = TagScanner(thinking=thinking)
        self._channels = {True: _Channel(), False: _Channel()}

    def push(self, text: str) -> Parts:
        """Take the next piece of text, and return what is certain by now."""
        found: dict[bool, list[str]] = {True: [], False: []}
        for place, (thinking, section) in enumerate(self.scanner.push(text)):
            if place:
                for channel in self._channels.values():
                    channel.close_section()
            found[thinking].append(self._channels[thinking].push(section))
        return Parts("".join(found[True]), "".join(found[False]))

    def finish(self) -> Parts:
        """Return what was held back; the text has ended."""
        thinking, held = self.scanner.flush()
        text = self._channels[thinking].push(held)
        return Parts(text, "") if thinking else Parts("", text)


def parse(text: str, *, thinking: bool = False) -> Parts:
    """Divide a whole text as `ThinkParser` divides its pieces."""
    parser = ThinkParser(thinking=thinking)
    start, end = parser.push(text), parser.finish()
    return Parts(start.reasoning + end.reasoning, start.answer + end.answer)


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


def split_thinking(text: str, mode: Mode, *, finished: bool = True, prefilled: bool = False) -> Split:
    """Divide what the model wrote into reasoning and answer.

    Well-formed with thinking on: one block at the very start, then an answer. Off: an answer and no
    tag at all. Malformed text is divided as a stream of it would be: see `ThinkParser`.

    Args:
        text: The whole completion.
        mode: What the model was asked for.
        finished: Whether the model ended by itself; a text cut at a token limit is never well-formed.
        prefilled: Whether the prompt has opened the thinking block already.
    """
    reasoning, answer = parse(text, thinking=prefilled)
    tags = (text.count(THINK_OPEN), text.count(THINK_CLOSE), prefilled or text.lstrip().startswith(THINK_OPEN))
    expected = tags == ((1 - prefilled, 1, True) if mode == "on" else (0, 0, False))
    return Split(reasoning, answer, finished and expected and bool(answer))
