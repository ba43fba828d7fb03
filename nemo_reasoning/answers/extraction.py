"""Find the answer that a text states."""

import re
from collections.abc import Iterator

from nemo_reasoning.answers.equality import as_number
from nemo_reasoning.answers.languages import CORRECTED, NEGATED, SENTENCE_END, STATED, SUPPOSED, TALK, without_verb
from nemo_reasoning.answers.text import digits, unwrap

_MARKED = re.compile(r"####[ \t]*(\S[^\n]*)|<answer>((?:[^<]|<(?!/?answer>))++)</answer>", re.IGNORECASE)
_BOXED = re.compile(r"\\f?boxed\s*\{")
_LEAD = re.compile(
    r"(?:that|simply|just|therefore|thus|approximately|about|roughly|as follows:?|the following:|given by|equal to)\s+",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\b(?:because|since|as|for|so|which|when|if|where|and not|rather than|instead of)\b", re.IGNORECASE
)
_WHOLE = (
    r"(?:[1-9]\d{0,2}(?:\.\d{3}){1,30},\d+|[1-9]\d{0,2}(?:\.\d{3}){2,30}"
    r"|[1-9]\d{0,2}(?:[,'’\u00a0\u202f\u2009]\d{3}){1,30}(?:\.\d+)?|[1-9]\d?(?:,\d{2}){1,30},\d{3}|\d+[.,]\d+|\d+|\.\d+)"
)
_NUMBER = re.compile(rf"(?<![\w.])(?:[-−]|(?<=\s)–)?{_WHOLE}(?:/\d+)?(?![\w/]|[.,]\d)")
_BULLET = re.compile(r"^[-•–]\s+(?=[A-Z(*\[])")
_REFUSAL = re.compile(
    r"\bi(?:['’]m| am) (?:sorry|unable|not able)\b|\bi (?:cannot|can['’]t|can not|won['’]t|will not) "
    r"(?:answer|help|assist|provide|determine|comply|do)\b|\bas an ai\b|\bnone of the (?:above|options|choices)\b",
    re.IGNORECASE,
)
_MARK_UP = re.compile(r"[ \t\r\n*_`,;:]*")
_NEAR = 20  # characters: more than the words of SUPPOSED have
_LONGEST = 1000  # characters of an answer behind a phrase; what goes on without the end of a sentence is none


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
    if (stated := max(statements(text), default=None)) is not None:
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
    end = None
    for match, supposed in _statements(text):
        start = _MARK_UP.match(text, match.end()).end()  # type: ignore[union-attr]
        if end is None or end.start() < start:
            end = SENTENCE_END.search(text, start)
        if supposed or end is None or end[0] in ("?", "？", "؟") or end.start() > start + _LONGEST:
            continue
        content = _BULLET.sub("", text[start : end.start()])
        content = content[found.end() :] if (found := CORRECTED.match(content)) else content
        if _BOXED.search(content):
            continue
        bare = unwrap(content)
        answer = unwrap(_LEAD.sub("", bare, count=1)) if _LEAD.match(bare) else bare
        if NEGATED.search(answer):
            continue
        answer = unwrap(without_verb(answer)).rstrip(" ,;")
        if answer and not TALK.fullmatch(answer):
            yield match.start(), answer


def _statements(text: str) -> Iterator[tuple[re.Match[str], bool]]:
    """Yield each phrase, and whether a word before it in its sentence only supposes it."""
    place, stop, supposed = 0, -1, -1  # the last phrase; the last end of a sentence; behind the last such word
    words = SUPPOSED.finditer(text)
    word = next(words, None)
    for match in STATED.finditer(text):
        stop = max(stop, text.rfind(".", place, match.start()), text.rfind("\n", place, match.start()))
        place = match.start()
        while word is not None and word.end() <= place:
            supposed, word = word.end(), next(words, None)
        glued = SUPPOSED.search(text, max(stop + 1, place - _NEAR), place)  # as in Chinese, without a blank between
        yield match, supposed > stop or glued is not None


def _boxes(text: str) -> Iterator[tuple[int, str]]:
    """Yield the place and the content of each closed box; braces may nest."""
    boxes = {match.end() - 1: match.start() for match in _BOXED.finditer(text)}
    opened, innermost = list[int](), -1
    for brace in re.finditer("[{}]", text if boxes else ""):
        if brace[0] == "{":
            opened.append(brace.start())
            innermost = brace.start() if brace.start() in boxes else innermost
        elif opened and (place := opened.pop()) in boxes and place == innermost:  # one within it counts instead
            answer = unwrap(text[place + 1 : brace.start()].strip())
            if answer and not TALK.fullmatch(answer):
                yield boxes[place], answer
