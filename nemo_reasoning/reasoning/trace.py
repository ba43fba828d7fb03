"""Traces in finished answers: every marker in use, split off and written in the one format.

A trace is what stands between markers at the very start of an answer. Tags inside code, and closing tags after
the first one, are text: answers and traces may speak about tags. Prompts are never split.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from nemo_reasoning.reasoning.code import outside_code
from nemo_reasoning.reasoning.tags import THINK_CLOSE, THINK_OPEN

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_SPACE = re.compile(r"\s*")
_VISIBLE = re.compile(rf"[^\s{_INVISIBLE}]")


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


def _xml(name: str) -> Marker:
    """Return the marker of a pair of tags, in any case, with blanks and attributes within them."""
    begin = re.compile(rf"<\s*{name}(?:\s[^<>]*)?>", re.I)
    end = re.compile(rf"<\s*/\s*{name}\s*>", re.I)
    answer = (re.compile(r"\A\s*<\s*answer\s*>", re.I), re.compile(r"<\s*/\s*answer\s*>\s*\Z", re.I))
    return Marker(f"<{name}>", f"<{name}>…</{name}>", begin, end, answer)


def _literal(name: str, opening: str, closing: str, answer: tuple[str, str] | None = None) -> Marker:
    """Return the marker of two fixed strings, and perhaps of two more around the answer."""
    around = answer and (
        re.compile(rf"\A\s*{re.escape(answer[0])}", re.I),
        re.compile(rf"{re.escape(answer[1])}\s*\Z", re.I),
    )
    begin, end = (re.compile(re.escape(text), re.I) for text in (opening, closing))
    return Marker(name, f"{opening}…{closing}", begin, end, around or None)


MARKERS = (
    _xml("think"),  # DeepSeek-R1, Qwen3, Nemotron
    _xml("thinking"),
    _xml("reasoning"),
    _xml("thought"),
    _xml("thoughts"),
    _xml("antthinking"),
    _xml("seed:think"),  # Seed-OSS
    _xml("mm:think"),
    _xml("longcat_think"),
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
_FIRST_SIGNS = "<[\u25c1"
# What every marker, opening or closing, begins with.
_HINT = re.compile(
    rf"[{re.escape(_FIRST_SIGNS)}]\s*(?:/\s*)?(?:\|(?:begin_of|end_of|start|end)_)?"
    r"(?:ant|seed:|mm:|longcat_)?(?:think|thought|reasoning)",
    re.I,
)
# Answers that begin with a trace in markers of their own are refused: they would be learned as answers.
_WORD = r"think|thinking|thoughts?|reason|reasoning|reflection|scratch_?pad|rationale|analysis|cot|monologue|思考"
_BRACKET, _BRACKET_END = r"(?:<\|?|\[|\{|＜|&lt;|\u25c1)", r"(?:\|?>|\]|\}|＞|&gt;|\u25b7)"
_UNKNOWN = (
    re.compile(
        rf"{_BRACKET}(?:[\w:.-]+[\s:_-])?(?P<word>{_WORD})(?:[\s_:-][^<>\[\]{{}}]*)?{_BRACKET_END}"
        rf"(?=.*{_BRACKET}\s*(?:/|[\w-]*end)[^<>\[\]{{}}]*(?P=word))",
        re.I | re.S,
    ),
    re.compile(r"<(?:think|thinking|reasoning)\s*/>", re.I),
    re.compile(r"<\|channel\|>\s*analysis|<unused\d+>\s*thought", re.I),
    re.compile(
        r"(?:#+ *|\*\*)(?:thinking|thoughts?|thought process|reasoning)\b[ :*]*\n"
        r"(?=.*\n(?:#+ *|\*\*)(?:final )?(?:answer|response|output)\b)",
        re.I | re.S,
    ),
)
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
    return _VISIBLE.search(text) is None


def visible(text: str) -> str:
    """Return a text without zero-width characters."""
    if text.isascii() or not any(sign in text for sign in _INVISIBLE):
        return text
    return text.translate(dict.fromkeys(map(ord, _INVISIBLE)))


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
    opened = _split_opened(text)
    return _without_opening(_from_first_visible(text), thinks=thinks) if opened is None else opened


@lru_cache(maxsize=8)  # filters, switch and rendering ask for the same turn
def _split_opened(text: str) -> tuple[str, str] | None:
    """Split a turn that begins with an opening marker; None for any other."""
    body = _from_first_visible(text)
    marker, start = _opening(body)
    if marker is None:
        return None
    closing = outside_code(marker.close, body, start, unmatched=True)
    if closing is None:
        raise TraceError(f"{body[:start].strip()} is never closed", unclosed=True)
    trace, rest = body[start : closing.start()].strip(), body[closing.end() :]
    if outside_code(marker.close, rest, 0) and outside_code(marker.open, trace, 0):
        raise TraceError(f"{body[:start].strip()} within a trace", unclosed=False)
    return trace, _answer(rest, marker)


def _from_first_visible(text: str) -> str:
    """Return a text without white space around it and without invisible characters before it."""
    body = text.strip()
    if body[:1] in _INVISIBLE:  # an empty text is, too
        found = _VISIBLE.search(body)
        return body[found.start() :] if found else ""
    return body


def bare_trace(text: str) -> tuple[str, str]:
    """Return a trace that stands apart from its answer, without markers, and what follows the closing one.

    Raises:
        TraceError: A marker is neither first nor last.
    """
    body = _from_first_visible(text)
    marker, start = _opening(body)
    body = body[start:]
    for known in MARKERS if marker is None else (marker,):
        if closing := outside_code(known.close, body, 0, unmatched=True):
            if marker is None and body[closing.end() :].strip():
                continue  # a trace may speak about tags
            return body[: closing.start()].strip(), body[closing.end() :].strip()
    return body.strip(), ""


def _opening(body: str) -> tuple[Marker | None, int]:
    """Return the marker that a text begins with, and where its trace begins; some open it twice."""
    if body[:1] in _FIRST_SIGNS:
        for marker in MARKERS:
            end = 0
            while found := marker.open.match(body, end):
                end = _SPACE.match(body, found.end()).end()  # type: ignore[union-attr]
            if end:
                return marker, end
    return None, 0


def _mentions(text: str) -> bool:
    """Rule out most texts quickly: those without the beginning of any marker."""
    for sign in _FIRST_SIGNS:
        place = text.find(sign)
        while place >= 0:
            if _HINT.match(text, place):
                return True
            place = text.find(sign, place + 1)
    return False


def _without_opening(body: str, *, thinks: bool) -> tuple[str | None, str]:
    """Split a turn that does not begin with an opening marker."""
    mentioned = _mentions(body)
    closing = outside_code(_ANY_CLOSE, body, 0) if mentioned else None
    opening = outside_code(_ANY_OPEN, body, 0) if mentioned else None
    if closing is None and opening is None:
        _check_unknown(body)
    if opening is not None:
        if closing is not None and not (thinks and closing.start() < opening.start()):
            raise TraceError(f"text before {opening[0]}: {body[:40]!r}", unclosed=False)
        if closing is None:
            raise TraceError(f"{opening[0]} is never closed", unclosed=True)
    if closing is None:
        return None, _unwrapped(body)
    if not (thinks or _on_its_own(closing, body)):
        raise TraceError(f"{closing[0]} without an opening tag", unclosed=True)
    marker = next(known for known in MARKERS if known.close.fullmatch(closing[0]))
    return body[: closing.start()].strip(), _answer(body[closing.end() :], marker)


def _check_unknown(body: str) -> None:
    """Refuse an answer that begins with a trace in markers nobody knows."""
    if body[:1] in "<[{&#*\uff1c\u25c1":
        for pattern in _UNKNOWN:
            if found := pattern.match(body):
                told = found[0].strip()[:40]
                raise TraceError(
                    f"{told} is no known marker of a trace; write {THINK_OPEN} and {THINK_CLOSE}", unclosed=False
                )


def _unwrapped(body: str) -> str:
    """Return an answer without the markers that some models write around it even where they do not think."""
    if body.startswith("<|"):
        for marker in MARKERS:
            if marker.answer and marker.answer[0].match(body):
                return _answer(body, marker)
    return body


def _on_its_own(found: re.Match[str], text: str) -> bool:
    """Tell whether a tag begins or ends a line of a text."""
    before, after = text[: found.start()].rstrip(" \t"), text[found.end() :].lstrip(" \t")
    return before.endswith("\n") or after.startswith(("\n", "\r"))


def _answer(text: str, marker: Marker) -> str:
    """Return an answer without the markers around it."""
    if _mentions(text) and (second := outside_code(_ANY_OPEN, text, 0)) is not None:
        raise TraceError(f"a second {second[0]} after the first trace", unclosed=False)
    around = marker.answer
    while around and (begin := around[0].search(text)) and (end := around[1].search(text, begin.end())):
        text = text[begin.end() : end.start()]
    if around and (begin := around[0].search(text)) and begin[0].lstrip().startswith("<|"):
        raise TraceError(f"{begin[0].strip()} is never closed", unclosed=True)
    return text.strip()


def keeps_trace(content: str, rendered: str) -> bool:
    """Tell whether what a template made of a turn in the one format still holds its trace, judged by its beginning."""
    if not (content.startswith(THINK_OPEN) and THINK_CLOSE in content):
        return True
    trace, _ = split_trace(content)
    return (trace or "")[:32] in rendered
