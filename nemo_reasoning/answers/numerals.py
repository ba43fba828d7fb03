"""Numerals as people of all countries write them, as exact fractions."""

import re
from fractions import Fraction

_MOST_DIGITS = 4000
_MOST_EXPONENT = 5000
# In order: the first form that fits is read. `comma` are those with a comma, which separates members inside brackets.
_GROUPS = {
    "point": r"[1-9]\d{0,2}(?:(?P<point_by>[ '_])\d{3})(?:(?P=point_by)\d{3})*(?:\.\d+)?(?![\d])",
    "german": r"[1-9]\d{0,2}(?:\.\d{3})+,\d+(?![\d.,]\d)|[1-9]\d{0,2}(?:\.\d{3}){2,}(?![\d.,]\d)(?!\d)",
    "french": r"[1-9]\d{0,2}(?: \d{3})+,\d+(?!\d)",
    "english": r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?!\d|,\d)",
    "indian": r"[1-9]\d?(?:,\d{2})+,\d{3}(?:\.\d+)?(?!\d|,\d)",
}
_DECIMAL_COMMA = r"\d+,\d+(?!\d|,\d|\.\d)"
_PLAIN = r"\d+(?:\.\d+)?|\.\d+"
_EXPONENT = r"(?:[eE](?P<exponent>[+-]?\d+)(?![\w.]))?"
_REPEATING = re.compile(
    r"(\d*)[.,](\d*)(?:\\(?:overline|bar|dot)\s*(?:\{\s*(\d+)\s*\}|(\d))(?!\d)|\((\d+)\)(?![\d(])"
    r"|(?:(\d)\6{2,}|(\d{2,6}?)\7{2,})(?:\.{2,}|…|\\[lc]?dots(?![A-Za-z])))"
)


def _compiled(*names: str, decimal_comma: bool) -> re.Pattern[str]:
    forms = [f"(?P<{name}>{_GROUPS[name]})" for name in names]
    forms += [f"(?P<comma>{_DECIMAL_COMMA})"] if decimal_comma else []
    return re.compile("(?:" + "|".join([*forms, f"(?P<plain>{_PLAIN})"]) + ")" + _EXPONENT)


_OUTSIDE = {
    True: _compiled("french", "point", "german", "english", "indian", decimal_comma=True),
    False: _compiled("french", "point", "german", "english", "indian", decimal_comma=False),
}
_INSIDE = {
    True: _compiled("french", "point", "german", decimal_comma=True),
    False: _compiled("point", decimal_comma=False),
}
NUMERAL = re.compile(_OUTSIDE[True].pattern)


def read_numeral(text: str, start: int, *, inside: bool, decimal_comma: bool) -> tuple[Fraction, int] | None:
    r"""Return the number that begins at a place and where it ends, or None.

    Thousands may be set off by commas, points, spaces or apostrophes, in groups of three (or of two, as in India).
    A single group behind a point is a decimal fraction: 1.234 is less than two.

    Args:
        text: Made by `normalize`.
        start: Place of the first digit, or of the point in front of it.
        inside: Whether the place is inside brackets, where commas separate members.
        decimal_comma: Whether "3,14" is one number; otherwise it is two.
    """
    repeating = _REPEATING.match(text, start)
    if repeating and "," in repeating[0] and not decimal_comma:
        repeating = None
    if repeating and len(repeating[0]) > _MOST_DIGITS:
        return None
    if repeating:
        return _repeating(repeating[1], repeating[2], next(filter(None, repeating.groups()[2:]))), repeating.end()
    match = (_INSIDE if inside else _OUTSIDE)[decimal_comma].match(text, start)
    if match is None or len(match[0]) > _MOST_DIGITS:
        return None
    exponent = int(match["exponent"] or 0)
    if abs(exponent) > _MOST_EXPONENT:
        return None
    found = match.groupdict()
    number = match[0] if not match["exponent"] else match[0][: match.start("exponent") - 1]
    if found.get("german") or found.get("french") or found.get("comma"):
        number = number.replace(".", "").replace(" ", "").replace(",", ".")
    else:
        number = re.sub("[ ,'_]", "", number)
    return Fraction(number) * Fraction(10) ** exponent, match.end()


def _repeating(whole: str, start: str, period: str) -> Fraction:
    fixed = Fraction(int((whole or "0") + start), 10 ** len(start))
    return fixed + Fraction(int(period), 10 ** len(start) * (10 ** len(period) - 1))
