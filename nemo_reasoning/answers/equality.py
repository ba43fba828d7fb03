"""Tell whether two answers are the same: numbers, units, tuples, intervals, sets, LaTeX, words."""

import logging
import re
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from nemo_reasoning.answers.quantities import parse_quantity, plain, same_quantity
from nemo_reasoning.errors import BackendError

_COMMAND = re.compile(r"\\[a-z]+")
_FUNCTIONS = re.compile(r"\b(?:sqrt|sin|cos|tan|cot|sec|csc|log|exp|infinity|inf|pi|arc(?:sin|cos|tan)|min|max|mod)\b")
_WORD = re.compile(r"[^\W\d_]{3,}")
_NUMERIC = re.compile(r"[\d\\^+*/=\-<>|()\[\]{}]|^[a-z]$")
_NUMERAL = re.compile(r"\d_\{?\d")  # in another base than ten, which math-verify drops
_UNBOUNDED = re.compile(r"\^[^,]*\^[^,]*\^|\^\s*\{?\s*\(?[+-]?\d{4,}|\d{4,}\s*!|!\s*!|\d{200,}")
_LONGEST = 400  # characters of an answer that is parsed as mathematics
_SECONDS = 5
_ASSIGNED = re.compile(r"(?:[a-z](?:_\{?\w\}?)?|[a-z]\([a-z]\))\s*(?:=|\\in\b)\s*([^=<>]+)")
_UNION = re.compile(r"\\cup\b|∪")
_DECIMAL = re.compile(r"(?<![\w.])(\d*)\.(\d+)")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_PLAIN_NAMES = (
    (re.compile(r"(?<![\\a-z])(?:infinity|infty|inf|oo)\b"), r"\\infty "),
    (re.compile(r"(?<![\\a-z])pi\b"), r"\\pi "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"√\s*(\d+)"), r"\\sqrt{\1}"),
)


class _Collection(NamedTuple):
    """Several answers in one.

    Attributes:
        opening: Bracket in front; empty for a bare list.
        items: What stands between the commas.
        closing: Bracket behind.
    """

    opening: str
    items: list[str]
    closing: str

    @property
    def ordered(self) -> bool:
        return self.opening in ("(", "[")


def answers_equal(first: str, second: str) -> bool:
    r"""Tell whether two answers are the same.

    Numbers compare by exact value ("1,234" equals "1234.0", "0.5" equals "1/2", 0.333 and 1/3 differ); a
    unit counts only where both have one. Tuples and intervals compare in order and with their brackets,
    sets and bare lists in any order. LaTeX and formulas compare as mathematics, exactly too. Other text
    compares by its words, in any case.

    Raises:
        BackendError: Formulas have to be compared and math-verify is not installed.
    """
    left, right = _unassigned(plain(first), plain(second))
    quantities = parse_quantity(left), parse_quantity(right)
    if quantities[0] is not None and quantities[1] is not None:
        return same_quantity(quantities[0], quantities[1])
    if left.replace(" ", "") == right.replace(" ", ""):
        return True
    if not left or not right:
        return False
    collections = _collection(left), _collection(right)
    if collections[0] is not None and collections[1] is not None:
        return _same_collection(collections[0], collections[1])
    return _is_formula(left) and _is_formula(right) and _same_formula(left, right)


def _unassigned(left: str, right: str) -> tuple[str, str]:
    """Take "x =" off an answer where the other one names no variable."""
    matches = _ASSIGNED.fullmatch(left), _ASSIGNED.fullmatch(right)
    if matches[0] and not matches[1]:
        return matches[0][1].strip(), right
    if matches[1] and not matches[0]:
        return left, matches[1][1].strip()
    return left, right


def _collection(text: str) -> _Collection | None:
    """Return the members of a tuple, interval, set, union or list, or None if it has fewer than two."""
    bare = text.replace("\\{", "{").replace("\\}", "}").replace("\\lbrace", "{").replace("\\rbrace", "}")
    union = _split(bare, _UNION)
    if len(union) > 1:
        return _Collection("", union, "")
    if _enclosed(bare) and len(inner := _split(bare[1:-1], re.compile("[,;]"))) > 1:
        return _Collection(bare[0], inner, bare[-1])
    if _enclosed(bare) and bare[0] == "{":
        return _Collection("{", [bare[1:-1].strip()], "}")
    listed = _split(bare, re.compile(r"[,;](?:\s*and\b|\s*or\b)?|\band\b|\bor\b"))
    items = [sign for item in listed for sign in _signs(item)]
    return _Collection("", items, "") if len(items) > 1 else None


def _enclosed(text: str) -> bool:
    """Whether the first bracket closes at the very end, by any closing bracket: intervals mix them."""
    if len(text) < 2 or text[0] not in _CLOSING or text[-1] not in ")]}":
        return False
    depth = 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return place == len(text) - 1
    return False


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """Split at separators outside of all brackets."""
    items, start, depth = [], 0, 0
    for match in re.finditer(rf"(?P<open>[(\[{{])|(?P<close>[)\]}}])|{separator.pattern}", text):
        depth += bool(match["open"]) - bool(match["close"])
        if depth == 0 and not match["open"] and not match["close"]:
            items.append(text[start : match.start()].strip())
            start = match.end()
    return [item for item in [*items, text[start:].strip()] if item]


def _signs(item: str) -> list[str]:
    r"""Return both values of an item with \pm."""
    if "\\pm" not in item and "±" not in item:
        return [item]
    bare = item.replace("\\pm", "±")
    return [bare.replace("±", "+").lstrip("+ "), bare.replace("±", "-")]


def _same_collection(left: _Collection, right: _Collection) -> bool:
    if len(left.items) != len(right.items):
        return False
    if left.opening and right.opening:
        brackets = (left.opening, left.closing) == (right.opening, right.closing)
        if not brackets:
            return False
    if left.ordered or right.ordered:
        return all(answers_equal(one, other) for one, other in zip(left.items, right.items, strict=True))
    return _same_members(left.items, right.items)


def _same_members(left: Sequence[str], right: Sequence[str]) -> bool:
    remaining = list(right)
    for item in left:
        found = next((place for place, other in enumerate(remaining) if answers_equal(item, other)), None)
        if found is None:
            return False
        del remaining[found]
    return True


def _is_formula(text: str) -> bool:
    """Whether a text may be parsed as mathematics: no words, and nothing that takes for ever to compute."""
    bare = _FUNCTIONS.sub(" ", _COMMAND.sub(" ", text))
    return (
        len(text) <= _LONGEST
        and not _WORD.search(bare)
        and _NUMERIC.search(text) is not None
        and not _NUMERAL.search(text)
        and not _UNBOUNDED.search(text)
    )


def _same_formula(left: str, right: str) -> bool:
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise BackendError("formulas are compared with math-verify: pip install math-verify") from error
    # Its time limit is an alarm signal, which only the main thread of a process can receive.
    seconds = _SECONDS if threading.current_thread() is threading.main_thread() else None
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    parsed: list[Any] = [
        parse(f"${_latex(text)}$", parsing_timeout=seconds, raise_on_error=False) for text in (left, right)
    ]
    if not all(parsed):
        return False
    return any(
        verify(gold, target, timeout_seconds=seconds, raise_on_error=False)
        for gold, target in (parsed, reversed(parsed))
    )


def _latex(text: str) -> str:
    """Return a formula as LaTeX (people also write pi, ** and infinity), with exact decimals."""
    for pattern, replacement in _PLAIN_NAMES:
        text = pattern.sub(replacement, text)
    return _DECIMAL.sub(lambda match: rf"\frac{{{match[1]}{match[2]}}}{{1{'0' * len(match[2])}}}", text)
