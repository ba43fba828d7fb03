"""Answers as plain text, and as exact numbers with units."""

import re
from fractions import Fraction
from typing import NamedTuple

WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
NUMBER = rf"(?:{WHOLE}(?:\.[0-9]+)?|\.[0-9]+)"
WRAPPERS = " \t\n*$`\"'"

_TEXT = re.compile(r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\left\b|\\right\b|\\displaystyle\b|(?<!\\)\\[,;:! ()\[\]$]|~|\$")
_SIMPLE_FRACTION = re.compile(
    rf"\\[dtc]?frac\s*(?:\{{\s*([+-]?{NUMBER})\s*\}}|([0-9]))\s*(?:\{{\s*({NUMBER})\s*\}}|([0-9]))"
)
_SUBSCRIPT = re.compile(r"_\{(\w)\}")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b|°")
_SYMBOLS = str.maketrans(
    {"−": "-", "–": "-", "‑": "-", "×": "*", "·": "*", "∞": "\\infty ", "π": "\\pi ", "≤": "\\le ", "≥": "\\ge "}
)
_QUANTITY = re.compile(
    rf"[€£¥]?(?P<sign>[+-]?)\s*[€£¥]?(?:(?P<mixed>[0-9]+)\s+(?=[0-9]+\s*/))?(?P<top>{NUMBER})\.?"
    rf"(?:\s*/\s*(?P<bottom>[+-]?{NUMBER}))?"
    r"(?:\s*(?:\*|\\times|\\cdot|x)\s*10\s*\^\s*\{?\s*(?P<power>[+-]?[0-9]+)\s*\}?|e(?P<exponent>[+-]?[0-9]+))?"
    r"(?P<gap>\s*)(?P<unit>%|[a-z°µ][a-z°µ0-9/^²³ .{}\-]*)?"
)
_LARGEST_EXPONENT = 400
_UNITS = {
    **{"percent": "%", "per cent": "%", "degree": "°", "deg": "°", "usd": "dollar", "hr": "h", "hour": "h"},
    **{"sec": "s", "second": "s", "minute": "min", "gram": "g", "kilogram": "kg", "liter": "l", "litre": "l"},
    **{"meter": "m", "metre": "m", "kilometer": "km", "kilometre": "km", "inch": "in", "inche": "in", "foot": "ft"},
    **{"centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "millimetre": "mm", "feet": "ft"},
}
# Letters behind a number are a unit only if they are one of these, or words: 2x and 3 xy are formulas.
_KNOWN_UNIT = re.compile(
    "[%°msghlavwjknc]|[kcmn]m|[km]g|ml|[km]?[jw]|[km]v|m[as]|ns|k?pa|[gmk]?hz|ev|ft|in|oz|lb|mi|yd|mol|atm|bar|min"
    "|usd|mpa|kwh|mph|kmh|rad"
)
_FUNCTION = re.compile("(?:arc)?(?:sin|cos|tan)|cot|sec|csc|log|exp|sqrt|inf|infinity|mod")
_UNIT_PART = re.compile(r"([a-z°µ%\-]+)(?:\^?-?[0-9])?")


class Quantity(NamedTuple):
    """An exact number and its unit.

    Attributes:
        value: Of any size.
        unit: In its short form; empty without one.
    """

    value: Fraction
    unit: str


def plain(answer: str) -> str:
    r"""Return the answer in lower case without mark-up, outer punctuation and superfluous white space."""
    bare = _TEXT.sub(r" \1 ", answer.strip(WRAPPERS)).translate(_SYMBOLS).replace("{,}", ",")
    bare = _DEGREES.sub(" degree", _SPACING.sub(" ", bare)).replace("\\%", "%")
    bare = _SUBSCRIPT.sub(r"_\1", bare)
    return " ".join(bare.strip(WRAPPERS).rstrip(".").casefold().split())


def _slashed(match: re.Match[str]) -> str:
    """Return a fraction of two numbers with a slash; behind a digit it is the second part of a mixed number."""
    mixed = match.string[: match.start()].rstrip()[-1:].isdigit()
    return f"{' ' if mixed else ''}{match[1] or match[2]}/{match[3] or match[4]}"


def parse_quantity(text: str) -> Quantity | None:
    """Return the number with its unit that a text made by `plain` is, or None if it is anything else."""
    match = _QUANTITY.fullmatch(_SIMPLE_FRACTION.sub(_slashed, text))
    unit = _unit(match["unit"] or "", glued=not match["gap"]) if match else None
    if match is None or unit is None:
        return None
    try:
        value = _fraction(match["top"]) / _fraction(match["bottom"] or "1")
        value += int(match["mixed"] or 0)
        exponent = int(match["power"] or match["exponent"] or 0)
    except (ZeroDivisionError, ValueError):  # ValueError: more digits than Python converts
        return None
    if abs(exponent) > _LARGEST_EXPONENT:
        return None
    value *= Fraction(10) ** exponent
    return Quantity(-value if match["sign"] == "-" else value, unit)


def same_quantity(first: Quantity, second: Quantity) -> bool:
    """Compare values exactly; a missing unit fits any, and 50 % is 50 as well as 0.5."""
    if "%" in (first.unit, second.unit) and first.unit != second.unit:
        percent, other = (first, second) if first.unit == "%" else (second, first)
        return not other.unit and other.value in (percent.value, percent.value / 100)
    return first.value == second.value and (not first.unit or not second.unit or first.unit == second.unit)


def _fraction(number: str) -> Fraction:
    return Fraction(number.replace(",", ""))


def _unit(text: str, *, glued: bool) -> str | None:
    """Return a unit in its short form, or None if the text is none; a glued one touches its number."""
    unit = re.sub(r"\s*\^\s*", "^", text.replace("{", "").replace("}", "").replace("²", "^2").replace("³", "^3"))
    unit = " ".join(unit.split()).rstrip(".")
    parts = [_UNIT_PART.fullmatch(part) for part in re.split(" ?/ ?| ", unit)] if unit else []
    names = [match[1] for match in parts if match is not None]
    if len(names) < len(parts) or any(map(_FUNCTION.fullmatch, names)):
        return None
    if not all(map(_KNOWN_UNIT.fullmatch, names)) and (glued or max(map(len, names)) < 3):
        return None
    singular = unit[:-1] if len(unit) > 2 and unit.endswith("s") else unit
    return _UNITS.get(unit, _UNITS.get(singular, singular))
