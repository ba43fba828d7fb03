"""What of a text stands inside code: between fences, or between backticks on its line."""

import re
from functools import cached_property


def outside_code(pattern: re.Pattern[str], text: str, start: int, *, unmatched: bool = False) -> re.Match[str] | None:
    """Return the first match that is not inside code.

    Args:
        pattern: What to look for.
        text: Where.
        start: From which character on.
        unmatched: If all matches seem to be inside code, return the last one that begins a line: a trace may
            open a fence that it never closes.
    """
    last, code = None, _Code(text, start)
    for found in pattern.finditer(text, start):
        if not code.holds(found):
            return found
        if unmatched and found.start() and text[found.start() - 1] == "\n":
            last = found
    return last


class _Code:
    """Tells whether matches stand between fences, or between backticks on their line; asked for them in order."""

    def __init__(self, text: str, start: int) -> None:
        """Take a text, and the character from which on it counts."""
        self._text, self._counted = text, start
        self._fenced = self._inline = False  # whether a fence, or a backtick on the line, is open there
        self._tick = -1  # the first backtick behind the last match that asked for it

    @cached_property
    def _last_fence(self) -> int:
        return self._text.rfind("```")

    def holds(self, found: re.Match[str]) -> bool:
        """Tell whether a match is inside code."""
        text, end = self._text, found.end()
        self._count_to(found.start())
        if self._fenced and self._last_fence >= end:
            return True
        if not self._inline:
            return False
        if self._tick < end:
            self._tick = (text.find("`", end) + 1 or len(text) + 1) - 1
        return self._tick < len(text) and text.find("\n", end, self._tick) < 0

    def _count_to(self, place: int) -> None:
        text, start = self._text, self._counted
        self._counted = place
        if not self._inline and text.find("`", start, place) < 0:
            return
        self._fenced ^= text.count("```", start, place) % 2 == 1
        if (line := text.rfind("\n", start, place)) >= 0:
            self._inline, start = False, line
        self._inline ^= (text.count("`", start, place) - 3 * text.count("```", start, place)) % 2 == 1
