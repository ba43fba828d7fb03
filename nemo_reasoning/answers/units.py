"""Units behind a number or a formula, with the exact factors between them."""

import re
from fractions import Fraction
from typing import NamedTuple


class Unit(NamedTuple):
    """A product of powers of units.

    Attributes:
        scale: Of one of it in the units below.
        powers: Name and exponent of each, by name; (("m", 1), ("s", -1)) is a metre a second.
    """

    scale: Fraction
    powers: tuple[tuple[str, int], ...]


PERCENT, DEGREE, RADIAN = (Unit(Fraction(1), ((name, 1),)) for name in ("%", "°", "rad"))

_INCH, _POUND = Fraction(254, 10_000), Fraction(45_359_237, 100_000_000)
_TABLE: dict[str, tuple[str, Fraction | int]] = {
    **{"m": ("m", 1), "in": ("m", _INCH), "ft": ("m", 12 * _INCH), "yd": ("m", 36 * _INCH)},
    **{"mi": ("m", 63_360 * _INCH), "g": ("g", 1), "lb": ("g", 1000 * _POUND), "oz": ("g", 1000 * _POUND / 16)},
    **{"t": ("g", 10**6), "s": ("s", 1), "min": ("s", 60), "h": ("s", 3600), "day": ("s", 86_400)},
    **{"week": ("s", 604_800), "L": ("L", 1), "month": ("month", 1), "year": ("month", 12), "dozen": ("dozen", 1)},
    **{name: (name, 1) for name in ("N", "J", "W", "V", "A", "K", "Pa", "Hz", "mol", "C", "Ω", "eV", "cal", "B", "T")},
    **{name: (name, 1) for name in ("%", "°", "°C", "°F", "rad", "atm", "bar", "Wh", "F", "bit", "M", "dB", "sr")},
    **{"$": ("$", 1), "¢": ("$", Fraction(1, 100)), "€": ("€", 1), "£": ("£", 1), "¥": ("¥", 1), "INR": ("INR", 1)},
}
_PREFIXES: dict[str, Fraction | int] = {
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "c": Fraction(1, 100),
    "d": Fraction(1, 10),
}
_PREFIXES |= {"m": Fraction(1, 10**3), "μ": Fraction(1, 10**6), "n": Fraction(1, 10**9), "p": Fraction(1, 10**12)}
_PREFIXED = (
    "m",
    "g",
    "s",
    "L",
    "N",
    "J",
    "W",
    "V",
    "A",
    "Pa",
    "Hz",
    "mol",
    "Ω",
    "eV",
    "cal",
    "B",
    "T",
    "Wh",
    "bit",
    "F",
)
_NAMES = {
    **{
        "meter": "m",
        "metre": "m",
        "inch": "in",
        "inches": "in",
        "foot": "ft",
        "feet": "ft",
        "yard": "yd",
        "mile": "mi",
    },
    **{"gram": "g", "gramme": "g", "pound": "lb", "lbs": "lb", "ounce": "oz", "tonne": "t", "second": "s", "sec": "s"},
    **{"minute": "min", "mins": "min", "hour": "h", "hr": "h", "liter": "L", "litre": "L", "l": "L", "newton": "N"},
    **{"joule": "J", "watt": "W", "volt": "V", "ampere": "A", "amp": "A", "kelvin": "K", "pascal": "Pa", "hertz": "Hz"},
    **{"mole": "mol", "coulomb": "C", "ohm": "Ω", "percent": "%", "per cent": "%", "percentage": "%", "byte": "B"},
    **{"degree": "°", "deg": "°", "celsius": "°C", "fahrenheit": "°F", "radian": "rad", "dollar": "$", "usd": "$"},
    **{"cent": "¢", "euro": "€", "eur": "€", "gbp": "£", "yen": "¥", "jpy": "¥", "inr": "INR", "rupee": "INR"},
    **{"micron": "μm", "yr": "year", "wk": "week", "dy": "day", "Omega": "Ω", "hz": "Hz", "pa": "Pa", "cc": "cm^3"},
    **{
        "kph": "km/h",
        "kmh": "km/h",
        "mph": "mi/h",
        "kwh": "kWh",
        "calorie": "cal",
        "tesla": "T",
        "ml": "mL",
        "cl": "cL",
    },
    **{
        "dl": "dL",
        "khz": "kHz",
        "mhz": "MHz",
        "ghz": "GHz",
        "gm": "g",
        "gms": "g",
        "kgs": "kg",
        "Å": "Å",
        "unit": "unit",
    },
}
_LONG_PREFIXES = {"kilo": "k", "mega": "M", "giga": "G", "centi": "c", "milli": "m", "micro": "μ", "nano": "n"}
# Words behind a number that change its value, deny it or bound it.
_NO_UNIT = """
    a about above absolute all an and are as at be been below billion billions but by choose combination correct
    cos crore crores cube cubed cubes dozens each eighth eighths equal equals even exactly except exp factorial
    false fewer fifth fifths five for four fourth fourths from greater half halves has have hundred hundreds
    hundredth hundredths if in incorrect infinite infinity integer is isn it its k lakh lakhs least less log max
    maximum maybe million millions min minimum minus mod modulo more most negative neither never no none nor not
    nothing of off on one or otherwise out over permutation pi plus positive possibly power prime probably
    quarter quarters quintillion ratio remainder root roots score scores sin six sixth sixths sqrt square
    squared squares tan ten tens tenth tenths than that the then third thirds thousand thousands thousandth
    thousandths three through till times to total trillion trillions true two undefined under unless until up
    upto vs was were when where which with without wrong zero
"""
_PART = re.compile(r"([A-Za-zΩμ°%$€£¥¢À-ɏ'-]+)(?:\^?\{?(-?\d)\}?)?")
_QUALIFIED = re.compile(r"\b(square|sq|cubic)\.? ([A-Za-z]+)")


def parse_unit(text: str, *, words: bool) -> Unit | None:
    """Return the unit that a whole text is, or None.

    Args:
        text: Such as "km/h", "m s^{-1}", "square feet", "apples per day".
        words: Whether nouns that are in no table count too, each as a unit of its own.
    """
    bare = re.sub(r"\s*\^\s*", "^", text.replace("²", "^2").replace("³", "^3")).strip(" .")
    bare = _QUALIFIED.sub(lambda match: f"{match[2]}^{3 if match[1] == 'cubic' else 2}", bare)
    bare = re.sub(r"° ?([CF])\b", r"°\1", re.sub(r"\bper cent\b", "%", bare))
    bare = re.sub(r"\bdegrees? (celsius|fahrenheit|[CF])\b", lambda m: "°" + m[1][0].upper(), bare, flags=re.IGNORECASE)
    parts = re.split(r"\s*(/|\*|\bper\b|\s)\s*", bare) if bare else []
    scale, powers, sign = Fraction(1), dict[str, int](), 1
    for place, part in enumerate(parts):
        if place % 2:
            sign = -1 if part in ("/", "per") or sign < 0 else 1
            continue
        found = _factor(part, words=words)
        if found is None:
            return None
        scale *= found.scale**sign
        for name, exponent in found.powers:
            powers[name] = powers.get(name, 0) + sign * exponent
    kept = tuple(sorted((name, exponent) for name, exponent in powers.items() if exponent))
    return Unit(scale, kept) if kept else None


def _factor(part: str, *, words: bool) -> Unit | None:
    match = _PART.fullmatch(part)
    if match is None:
        return None
    name, exponent = match[1], int(match[2] or 1)
    if exponent == 0:
        return None
    known = _known(name)
    if known is not None:
        return Unit(known.scale**exponent, tuple((unit, power * exponent) for unit, power in known.powers))
    noun = name.casefold()
    if not words or len(noun) < 3 or noun in _NO_UNIT.split() or noun.endswith(("th", "nd", "rd")):
        return None
    return Unit(Fraction(1), ((_singular(noun), exponent),))


def _known(name: str) -> Unit | None:
    for spelled in (name, name.casefold(), _singular(name.casefold())):
        short = _NAMES.get(spelled, spelled)
        if "/" in short or "^" in short:
            return parse_unit(short, words=False)
        if found := _short(short):
            return found
        for long, prefix in _LONG_PREFIXES.items():
            rest = _NAMES.get(spelled.removeprefix(long), "")
            if spelled.startswith(long) and rest in _PREFIXED:
                return _short(prefix + rest)
        if spelled == name and len(name) < 3 and name.upper() != name:  # MW is not mW; KM is km, Mg is not mg
            return None
    return None


def _short(name: str) -> Unit | None:
    if name in _TABLE:
        base, scale = _TABLE[name]
        return Unit(Fraction(scale), ((base, 1),))
    if name[:1] in _PREFIXES and name[1:] in _PREFIXED:
        base, scale = _TABLE[name[1:]]
        return Unit(Fraction(_PREFIXES[name[0]]) * scale, ((base, 1),))
    return None


def _singular(noun: str) -> str:
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if noun.endswith(("ches", "shes", "xes", "sses")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and not noun.endswith("ss") and len(noun) > 3 else noun
