"""Traces in finished answers: every marker in use, split off and written in the one format.

A trace is what stands between markers at the very start of an answer. Tags inside code, and closing tags after
the first one, are text: answers and traces may speak about tags. Prompts are never split.
"""

import re
from typing import NamedTuple

from nemo_reasoning.reasoning.tags import THINK_CLOSE, THINK_OPEN

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"


class Marker(NamedTuple):
    """How a family of models marks a trace.

    Attributes:
        name: For tables.
        example: A trace with its markers, as a model writes them.
        open: What begins a trace.
        close: What ends it.
        answer: What may stand around the answer, taken off where both are there.
    """

    name: str
    example: str
    open: re.Pattern[str]
    close: re.Pattern[str]
    answer: tuple[re.Pattern[str], re.Pattern[str]] | None = None


def _tag(name: str, *, end: bool = False) -> re.Pattern[str]:
    return re.compile(rf"<\s*{'/' if end else ''}\s*{name}\s*>", re.IGNORECASE)


def _xml(name: str) -> Marker:
    """Return the marker of a pair of tags, in any case and with blanks within them."""
    answer = (re.compile(r"\A\s*<\s*answer\s*>", re.I), re.compile(r"<\s*/\s*answer\s*>\s*\Z", re.I))
    return Marker(f"<{name}>", f"<{name}>…</{name}>", _tag(name), _tag(name, end=True), answer)


def _literal(
    name: str, opening: str, closing: str, answer: tuple[str, str] | None = None, *, ignore_case: bool = True
) -> Marker:
    """Return the marker of two fixed strings, and perhaps of two more around the answer."""
    flags = re.IGNORECASE if ignore_case else 0
    around = answer and (
        re.compile(rf"\A\s*{re.escape(answer[0])}", flags),
        re.compile(rf"{re.escape(answer[1])}\s*\Z", flags),
    )
    begin, end = (re.compile(re.escape(text), flags) for text in (opening, closing))
    return Marker(name, f"{opening}…{closing}", begin, end, around or None)


MARKERS = (
    _xml("think"),  # DeepSeek-R1, Qwen3, Nemotron
    _xml("thinking"),
    _xml("reasoning"),
    _xml("thought"),
    _xml("seed:think"),  # Seed-OSS
    _literal(
        "OpenThoughts",
        "<|begin_of_thought|>",
        "<|end_of_thought|>",
        ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ),
    _literal("Magistral", "[THINK]", "[/THINK]"),
    _literal("Kimi", "\u25c1think\u25b7", "\u25c1/think\u25b7"),
    _literal("Command A", "<|START_THINKING|>", "<|END_THINKING|>", ("<|START_RESPONSE|>", "<|END_RESPONSE|>")),
)
_FIRST_OPEN = re.compile(r"[<\[\u25c1]")
_ANY_OPEN = re.compile("|".join(f"(?:{marker.open.pattern})" for marker in MARKERS), re.IGNORECASE)
_ANY_CLOSE = re.compile("|".join(f"(?:{marker.close.pattern})" for marker in MARKERS), re.IGNORECASE)


class TraceError(ValueError):
    """The markers of a trace do not fit together.

    Attributes:
        unclosed: Whether one of a pair is missing.
    """

    def __init__(self, message: str, *, unclosed: bool) -> None:
        """Take what was found, and whether one of a pair is missing."""
        super().__init__(message)
        self.unclosed = unclosed


def is_blank(text: str) -> bool:
    """Tell whether a text has nothing to see: white space and zero-width characters do not count."""
    return not text.strip() or not text.translate(_REMOVED).strip()


_REMOVED = dict.fromkeys(map(ord, _INVISIBLE))


def visible(text: str) -> str:
    """Return a text without zero-width characters."""
    return text if text.isascii() else text.translate(_REMOVED)


def split_trace(text: str, *, thinks: bool = False) -> tuple[str | None, str]:
    """Split an assistant turn into trace and answer, whatever the markers and the white space around them.

    A closing tag alone, as models leave it whose prompt opened the trace, ends a trace if it ends or begins a
    line, or if the turn is known to think.

    Args:
        text: What the assistant says.
        thinks: Whether the turn is known to think.

    Returns:
        (trace, answer), without their markers; None for a turn that does not think.

    Raises:
        TraceError: A marker is unclosed, repeated, or does not come first; the message names it.
    """
    body = text.strip()
    marker, opening = _opening(body)
    if marker is None or opening is None:
        return _without_opening(body, thinks=thinks)
    closing = _outside_code(marker.close, body, opening.end(), unmatched=True)
    if closing is None:
        raise TraceError(f"{opening[0]} is never closed", unclosed=True)
    return body[opening.end() : closing.start()].strip(), _answer(body[closing.end() :], marker)


def _opening(body: str) -> tuple[Marker | None, re.Match[str] | None]:
    if _FIRST_OPEN.match(body):
        for marker in MARKERS:
            if found := marker.open.match(body):
                return marker, found
    return None, None


def _without_opening(body: str, *, thinks: bool) -> tuple[str | None, str]:
    """Split a turn that does not begin with an opening marker."""
    closing = _outside_code(_ANY_CLOSE, body, 0) if "/" in body or "|" in body else None
    opening = _outside_code(_ANY_OPEN, body, 0)
    if opening is not None:
        if closing is not None and not (thinks and closing.start() < opening.start()):
            raise TraceError(f"text before {opening[0]}: {body[:40]!r}", unclosed=False)
        if closing is None:
            raise TraceError(f"{opening[0]} is never closed", unclosed=True)
    if closing is None:
        return None, body
    if not (thinks or _on_its_own(closing, body)):
        raise TraceError(f"{closing[0]} without an opening tag", unclosed=True)
    marker = next(known for known in MARKERS if known.close.fullmatch(closing[0]))
    return body[: closing.start()].strip(), _answer(body[closing.end() :], marker)


def _on_its_own(found: re.Match[str], text: str) -> bool:
    """Tell whether a tag begins or ends a line of a text."""
    before, after = text[: found.start()].rstrip(" \t"), text[found.end() :].lstrip(" \t")
    return before.endswith("\n") or after.startswith(("\n", "\r"))


def _answer(text: str, marker: Marker) -> str:
    """Return an answer without the markers around it."""
    if (second := _outside_code(_ANY_OPEN, text, 0)) is not None:
        raise TraceError(f"a second {second[0]} after the first trace", unclosed=False)
    around = marker.answer
    while around and (begin := around[0].search(text)) and (end := around[1].search(text, begin.end())):
        text = text[begin.end() : end.start()]
    return text.strip()


def _outside_code(pattern: re.Pattern[str], text: str, start: int, *, unmatched: bool = False) -> re.Match[str] | None:
    """Return the first match that is not inside code.

    Args:
        pattern: What to look for.
        text: Where.
        start: From which character on.
        unmatched: If all matches seem to be inside code, return the last one that begins a line: a trace may
            open a fence that it never closes.
    """
    last = None
    for found in pattern.finditer(text, start):
        if not _in_code(text, start, found):
            return found
        if unmatched and text[: found.start()].endswith("\n"):
            last = found
    return last


def _in_code(text: str, start: int, found: re.Match[str]) -> bool:
    """Tell whether a match stands between fences, or between backticks on its line."""
    before = text[start : found.start()]
    if "`" not in before:
        return False
    if before.count("```") % 2 and "```" in text[found.end() :]:
        return True
    line_end = text.find("\n", found.end())
    after = text[found.end() : line_end if line_end >= 0 else len(text)]
    inline = before.rpartition("\n")[2].replace("```", "")
    return inline.count("`") % 2 == 1 and "`" in after


def keeps_trace(content: str, rendered: str) -> bool:
    """Tell whether what a template made of a turn in the one format still holds its trace, judged by its beginning."""
    if not (content.startswith(THINK_OPEN) and THINK_CLOSE in content):
        return True
    trace, _ = split_trace(content)
    return (trace or "")[:32] in rendered
