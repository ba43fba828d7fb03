"""Find the letter of a multiple-choice answer."""

import re
from collections.abc import Iterator, Sequence

from nemo_reasoning.answers.equality import answers_equal
from nemo_reasoning.answers.extraction import statements
from nemo_reasoning.answers.quantities import plain

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_OPEN, _CLOSE = r"[\s(\[{*_\"'`$]*", r"[)\]}*_\"'`$]*"
_NOUN = r"(?:(?:most likely|probably|clearly|definitely|indeed|the)\s+)*(?:(?:option|choice|letter|answer)\s*:?\s*)?"
_LETTER = re.compile(rf"{_OPEN}{_NOUN}({_OPEN})([A-Za-z])({_CLOSE})(?=$|[\s.,:;\-–—])(.*)", re.DOTALL)
_CHOSEN = re.compile(
    rf"\b(?:(?:correct|right|best)\s+(?:option|choice|one)\s*(?:is|:)|(?:choose|select|pick|go with))\s+"
    rf"({_NOUN}{_OPEN}[A-Z]{_CLOSE})(?![\w'’])",
    re.IGNORECASE,
)
_CALLED = re.compile(
    rf"\b(?:option|choice|answer)\s+{_OPEN}([A-Z]){_CLOSE}\s+is\s+(?:the\s+)?(?:correct|right|best)", re.IGNORECASE
)
_SEVERAL = re.compile(r"\s*(?:and|or|/|,|&)\s*(?:option|choice)?\s*[(\[]?[A-Z][)\]]?(?![\w'’])")
_REASON = re.compile(r"\s+(?:because|since|as|for|which|is|due)\b", re.IGNORECASE)
_FIRST_FINAL = re.compile(r"The final answer is ([A-D])")


def first_final_letter(text: str) -> str | None:
    """Return what NVIDIA's tutorial takes for the answer: the letter of the first "The final answer is X".

    Source: tutorials/llm/reasoning/evaluation/evaluate_responses.py in NVIDIA/NeMo. It searches the whole
    response, its thinking included.
    """
    match = _FIRST_FINAL.search(text)
    return match[1] if match else None


def extract_choice(text: str, *, choices: Sequence[str]) -> str | None:
    """Return the letter that `text` answers with, or None if it names none, or several at once.

    The last statement that names a choice wins, by its letter or by its text. Without a statement, the
    last line counts if it is a choice and nothing else, and so does a text that begins with one.

    Args:
        text: What the model answered, without its thinking.
        choices: Texts of the choices in the order shown: the first is A.
    """
    for _, phrase in sorted(_stated(text), reverse=True):
        if letter := _named(phrase, choices):
            return letter
    lines = [line for line in text.split("\n") if line.strip()]
    alone = [letter for line in lines if (letter := _alone(line, choices))]
    if len(set(alone)) != 1:  # none, or the choices recited
        return None
    return _alone(lines[-1], choices) or _alone(lines[0], choices)


def _stated(text: str) -> Iterator[tuple[int, str]]:
    yield from statements(text)
    for pattern in (_CHOSEN, _CALLED):
        for match in pattern.finditer(text):
            yield match.start(), match[1]


def _named(phrase: str, choices: Sequence[str]) -> str | None:
    """Return the letter a statement names."""
    bare = re.sub(r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", phrase).strip()
    match = _LETTER.match(bare)
    if match is None:
        return _by_text(bare, choices)
    before, letter, after, rest = match.groups()
    wrapped = bool(before.strip(" ") or after)
    upper = letter.upper()
    if LETTERS.index(upper) >= len(choices) or (letter.islower() and rest.strip(" .") and not wrapped):
        return _by_text(bare, choices)
    if _SEVERAL.match(rest):
        return None
    if rest.startswith(" ") and not wrapped and letter in "AI" and not _REASON.match(rest):  # may be a word
        return upper if _same(rest, choices[LETTERS.index(upper)]) else _by_text(bare, choices)
    return upper


def _by_text(phrase: str, choices: Sequence[str]) -> str | None:
    """Return the letter of the one choice whose text the phrase is."""
    found = [letter for letter, choice in zip(LETTERS, choices, strict=False) if _same(phrase, choice)]
    return found[0] if len(found) == 1 else None


def _same(phrase: str, choice: str) -> bool:
    return answers_equal(phrase.strip(" .:-*"), choice.strip(" .")) if plain(phrase) else False


def _alone(line: str, choices: Sequence[str]) -> str | None:
    """Return the letter of a line that is a choice: its letter, its text, or both."""
    match = _LETTER.fullmatch(line.strip())
    if match is None or LETTERS.index(match[2].upper()) >= len(choices):
        return _by_text(line, choices)
    before, letter, after, rest = match.groups()
    upper = letter.upper()
    if not rest.strip(" .:*") and (letter.isupper() or before.strip() or after):
        return upper
    stated = rest.lstrip(" .:)-*")
    if stated and _same(stated, choices[LETTERS.index(upper)]):
        return upper
    return _by_text(line, choices)
