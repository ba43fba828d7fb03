"""Find the final answer in a text, and tell whether two answers are the same."""

import re
from collections.abc import Iterator
from fractions import Fraction

_STATED = re.compile(r"\banswer(?:\s+to\b[^.\n]*?)?(?:\s+is\b|\s*[:=])[:\s*]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|[*$\"')\]]*\s*$)|\n|$")
_BOXED = re.compile(r"\\f?boxed\s*\{")
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_NUMBER = rf"(?:{_WHOLE}(?:\.[0-9]+)?|\.[0-9]+)"
_NUMBER_IN_TEXT = re.compile(rf"(?<![\w.])[-−]?{_NUMBER}(?:/{_WHOLE})?(?![\w/]|[.,][0-9])")
_QUOTIENT = re.compile(rf"([+-]?{_NUMBER}\.?)(?:\s*/\s*([+-]?{_NUMBER}))?")
_LATEX_FRACTION = re.compile(r"([+-]?)\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf)\{([^{}]*)\}")
_WRAPPERS = " \t\n*$`\"'"


def extract_final_answer(text: str, *, last_number: bool = False) -> str | None:
    r"""Return the answer that `text` states last, without its wrapping, or None.

    An answer is stated by "the answer is X", "Answer: X" or \boxed{X}. X ends with its sentence or line.

    Args:
        text: What the model answered, without its thinking.
        last_number: Where no answer is stated, take the last number; right for questions whose answer
            is a number, wrong for others.
    """
    stated = max([*_phrases(text), *_boxes(text)], default=None)
    if stated is not None:
        return stated[1]
    numbers = _NUMBER_IN_TEXT.findall(text) if last_number else []
    return numbers[-1] if numbers else None


def _phrases(text: str) -> Iterator[tuple[int, str]]:
    """Yield the place and the answer of each phrase; a box in it counts on its own."""
    for match in _STATED.finditer(text):
        end = _SENTENCE_END.search(text, match.end())
        answer = text[match.end() : end.start() if end else None].strip(_WRAPPERS)
        if answer and not _BOXED.search(answer):
            yield match.start(), answer


def _boxes(text: str) -> Iterator[tuple[int, str]]:
    """Yield the place and the content of each closed box; braces may nest."""
    for match in _BOXED.finditer(text):
        depth = 1
        for place in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                if answer := text[match.end() : place].strip(_WRAPPERS):
                    yield match.start(), answer
                break


def answers_equal(first: str, second: str) -> bool:
    """Tell whether two answers are the same: numbers by exact value, other text by its words.

    "1,234" equals "1234.0" and "0.5" equals "1/2"; 0.333 and 1/3 differ. Case and white space do not count.
    """
    left, right = _plain(first), _plain(second)
    left_value, right_value = _value(left), _value(right)
    if left_value is None or right_value is None:
        return left == right
    return left_value == right_value


def _plain(answer: str) -> str:
    r"""Return the answer in lower case without mark-up, outer punctuation and superfluous white space."""
    bare = _LATEX_TEXT.sub(r"\1", answer.strip(_WRAPPERS)).replace("−", "-").replace("{,}", ",")
    bare = _LATEX_FRACTION.sub(r"\1\2/\3", bare)
    return " ".join(bare.strip(_WRAPPERS).rstrip(".").casefold().split())


def _value(plain: str) -> Fraction | None:
    match = _QUOTIENT.fullmatch(plain)
    if match is None:
        return None
    top, bottom = (part.replace(",", "").rstrip(".") for part in match.groups(default="1"))
    try:
        return Fraction(top) / Fraction(bottom)
    except (ZeroDivisionError, ValueError):  # ValueError: more digits than Python converts
        return None
