"""Find the answer that a text states."""

import re
from collections.abc import Iterator

from nemo_reasoning.answers.quantities import NUMBER, WHOLE, WRAPPERS, parse_quantity, plain

_STATED = re.compile(
    r"\b(?:answer(?:\s+to\b[^.\n]*?)?[*_]*(?:\s+is\b|\s*[:=]|[ \t]*\n)|answers(?:\s+are\b|\s*[:=]))[:\s*_]*",
    re.IGNORECASE,
)
_MARKED = re.compile(r"####[ \t]*(\S[^\n]*)|<answer>(.+?)</answer>", re.IGNORECASE | re.DOTALL)
_SENTENCE_END = re.compile(r"[.!?](?=\s|[*$\"')\]]*\s*$)|\n|$")
_BOXED = re.compile(r"\\f?boxed\s*\{")
_LEAD = re.compile(r"(?:that|simply|just|therefore|thus|approximately|about|roughly)\s+", re.IGNORECASE)
_REASON = re.compile(r"\b(?:because|since|as|for)\b", re.IGNORECASE)
_DENIED = re.compile(r"not\b", re.IGNORECASE)
_NUMBER_IN_TEXT = re.compile(rf"(?<![\w.])[-−]?{NUMBER}(?:/{WHOLE})?(?![\w/]|[.,][0-9])")
_REFUSAL = re.compile(
    r"\bi(?:['’]m| am) (?:sorry|unable|not able)\b|\bi (?:cannot|can['’]t|can not|won['’]t|will not) "
    r"(?:answer|help|assist|provide|determine|comply|do)\b|\bas an ai\b|\bnone of the (?:above|options|choices)\b",
    re.IGNORECASE,
)


def extract_final_answer(text: str, *, last_number: bool = False) -> str | None:
    r"""Return the answer that `text` states last, without its wrapping, or None.

    An answer is stated by "the answer is X", "Answer: X", \boxed{X}, "#### X" or <answer>X</answer>. Where
    no mark closes it, X ends with its sentence or line.

    Args:
        text: What the model answered, without its thinking.
        last_number: Where no answer is stated, take the last number; right for questions whose answer
            is a number, wrong for others.
    """
    stated = max(statements(text), default=None)
    if stated is not None:
        return stated[1]
    numbers = _NUMBER_IN_TEXT.findall(text) if last_number else []
    return numbers[-1] if numbers else None


def extract_number(text: str) -> str | None:
    """Return the number that `text` states last, or failing that the last number in it, or None.

    A statement that says more than a number gives the number after its last "=", or its only number in
    front of a reason.
    """
    stated = extract_final_answer(text, last_number=True)
    if stated is None or parse_quantity(plain(stated)) is not None:
        return stated
    said = _REASON.split(stated, maxsplit=1)[0]
    numbers = _NUMBER_IN_TEXT.findall(said.rpartition("=")[2])
    return numbers[0] if len(set(numbers)) == 1 else stated


def is_refusal(text: str) -> bool:
    """Tell whether a text without an answer declines to give one."""
    return _REFUSAL.search(text) is not None


def statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield the place and the content of everything in `text` that states an answer."""
    yield from _phrases(text)
    yield from _boxes(text)
    for match in _MARKED.finditer(text):
        if answer := (match[1] or match[2]).strip(WRAPPERS):
            yield match.start(), answer


def _phrases(text: str) -> Iterator[tuple[int, str]]:
    """Yield the place and the answer of each phrase; a box in it counts on its own."""
    for match in _STATED.finditer(text):
        end = _SENTENCE_END.search(text, match.end())
        answer = text[match.end() : end.start() if end else None].strip(WRAPPERS)
        answer = _LEAD.sub("", answer, count=1) if _LEAD.match(answer) else answer
        if answer and not _BOXED.search(answer) and not _DENIED.match(answer):
            yield match.start(), answer


def _boxes(text: str) -> Iterator[tuple[int, str]]:
    """Yield the place and the content of each closed box; braces may nest."""
    for match in _BOXED.finditer(text):
        depth = 1
        for place in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                if answer := text[match.end() : place].strip(WRAPPERS):
                    yield match.start(), answer
                break
