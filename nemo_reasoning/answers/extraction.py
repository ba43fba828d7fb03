"""Find the answer that a text states."""

import re
from collections.abc import Iterator

from nemo_reasoning.answers.equality import as_number
from nemo_reasoning.answers.languages import NEGATED, SENTENCE_END, STATED, SUPPOSED, TALK, TRAILING
from nemo_reasoning.answers.text import digits, unwrap

_MARKED = re.compile(r"####[ \t]*(\S[^\n]*)|<answer>(.+?)</answer>", re.IGNORECASE | re.DOTALL)
_BOXED = re.compile(r"\\f?boxed\s*\{")
_LEAD = re.compile(
    r"(?:that|simply|just|therefore|thus|approximately|about|roughly|as follows:?|the following:|given by|equal to)\s+",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\b(?:because|since|as|for|so|which|when|if|where|and not|rather than|instead of)\b", re.IGNORECASE
)
_WHOLE = (
    r"(?:[1-9]\d{0,2}(?:\.\d{3})+,\d+|[1-9]\d{0,2}(?:\.\d{3}){2,}|[1-9]\d{0,2}(?:[,'’\u00a0\u202f\u2009]\d{3})+(?:\.\d+)?"
    r"|[1-9]\d?(?:,\d{2})+,\d{3}|\d+[.,]\d+|\d+|\.\d+)"
)
_NUMBER = re.compile(rf"(?<![\w.])(?:[-−]|(?<=\s)–)?{_WHOLE}(?:/\d+)?(?![\w/]|[.,]\d)")
_BULLET = re.compile(r"^[-•–]\s+(?=[A-Z(*\[])")
_REFUSAL = re.compile(
    r"\bi(?:['’]m| am) (?:sorry|unable|not able)\b|\bi (?:cannot|can['’]t|can not|won['’]t|will not) "
    r"(?:answer|help|assist|provide|determine|comply|do)\b|\bas an ai\b|\bnone of the (?:above|options|choices)\b",
    re.IGNORECASE,
)
_MARK_UP = " \t\r\n*_`,;:"


def extract_final_answer(text: str, *, last_number: bool = False) -> str | None:
    r"""Return the answer that `text` states last, without its wrapping, or None.

    An answer is stated by "the answer is X" or "Answer: X" (also in Chinese, Hindi, Spanish, Arabic, French, Bengali,
    Portuguese, Russian, Urdu, Indonesian, German and others), \boxed{X}, "#### X" or <answer>X</answer>. Where no mark
    closes it, X ends with its sentence or line. Denied, supposed and asked statements do not count, nor does what
    says nothing ("the answer is correct").

    Args:
        text: What the model answered, without its thinking.
        last_number: Where no answer is stated, take the last number; right for questions whose answer
            is a number, wrong for others.
    """
    stated = max(statements(text), default=None)
    if stated is not None:
        return stated[1]
    numbers = _NUMBER.findall(digits(text)) if last_number else []
    return numbers[-1] if numbers else None


def extract_number(text: str) -> str | None:
    """Return the number that `text` states last, or failing that the last number in it, or None.

    A statement that says more than a number gives the number after its last "=", or its only number in
    front of a reason; one without any number is passed over.
    """
    said = [answer for _, answer in sorted(statements(text), reverse=True)]
    for answer in said:
        if as_number(answer) is not None:
            return answer
        numbers: list[str] = _NUMBER.findall(_REASON.split(answer, maxsplit=1)[0].rpartition("=")[2])
        if len(set(numbers)) == 1:
            return numbers[0]
        if numbers or re.search(r"\d", answer):
            return answer
    if said:
        return said[0]
    everywhere: list[str] = _NUMBER.findall(digits(text))
    return everywhere[-1] if everywhere else None


def is_refusal(text: str) -> bool:
    """Tell whether a text without an answer declines to give one."""
    return _REFUSAL.search(text) is not None


def statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield the place and the content of everything in `text` that states an answer."""
    text = digits(text)
    yield from _phrases(text)
    yield from _boxes(text)
    for match in _MARKED.finditer(text):
        if answer := unwrap((match[1] or match[2]).strip()):
            yield match.start(), answer


def _phrases(text: str) -> Iterator[tuple[int, str]]:
    """Yield the place and the answer of each phrase; a box in it counts on its own."""
    for match in STATED.finditer(text):
        start = match.end() + len(text[match.end() :]) - len(text[match.end() :].lstrip(_MARK_UP))
        end = SENTENCE_END.search(text, start)
        content = _BULLET.sub("", text[start : end.start() if end else None])
        asked = end is not None and end[0] in ("?", "？", "؟")
        if asked or _BOXED.search(content) or SUPPOSED.search(text[: match.start()].rsplit("\n", 1)[-1]):
            continue
        answer = unwrap(_LEAD.sub("", unwrap(content), count=1) if _LEAD.match(unwrap(content)) else content)
        if NEGATED.search(answer):
            continue
        answer = unwrap(TRAILING.sub("", answer)).rstrip(" ,;")
        if answer and not TALK.fullmatch(answer):
            yield match.start(), answer


def _boxes(text: str) -> Iterator[tuple[int, str]]:
    """Yield the place and the content of each closed box; braces may nest."""
    boxes = {match.end() - 1: match.start() for match in _BOXED.finditer(text)}
    opened: list[int] = []
    for brace in re.finditer("[{}]", text if boxes else ""):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened and (place := opened.pop()) in boxes:
            answer = unwrap(text[place + 1 : brace.start()].strip())
            if answer and not TALK.fullmatch(answer) and not _BOXED.search(answer):
                yield boxes[place], answer
