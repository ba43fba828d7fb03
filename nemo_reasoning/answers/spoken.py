"""Numbers in words, remainders and numerals of other bases, written as the parser reads them."""

import re
from fractions import Fraction

_SMALL = """zero one two three four five six seven eight nine ten
    eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"""
_UNITS = {word: value for value, word in enumerate(_SMALL.split())}
_DECADES = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {word: 10 * value for value, word in enumerate(_DECADES.split(), start=2)}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7}
_PARTS |= {"eighth": 8, "ninth": 9, "tenth": 10, "hundredth": 100, "thousandth": 1000}
_PARTS |= {f"{word}s": value for word, value in _PARTS.items() if word not in ("half", "halves")}
_WORD = "|".join(sorted((*_UNITS, *_TENS, *_SCALES), key=len, reverse=True))
_NUMBER = rf"(?:{_WORD})(?:(?:[\s-]+|(?<=hundred)\s+and\s+|(?<=thousand)\s+and\s+)(?:{_WORD}))*"
_SPOKEN = re.compile(rf"(?<![\w.\\{{])(?:(?:minus|negative)\s+)?{_NUMBER}(?![\w-])", re.IGNORECASE)
_FRACTION = re.compile(
    rf"((?:minus|negative)\s+)?(?:(?:(?P<whole>{_NUMBER})\s+and\s+)?(?P<top>an?|{_NUMBER})[\s-]+)"
    rf"(?P<bottom>{'|'.join(sorted(_PARTS, key=len, reverse=True))})",
    re.IGNORECASE,
)
_HAN = dict(zip("零〇一二三四五六七八九两兩", (0, *range(10), 2, 2), strict=True))
_HAN_SCALES = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_HAN_NUMBER = re.compile(rf"([-负負]?)([{''.join((*_HAN, *_HAN_SCALES))}]{{1,20}})")
_RESIDUE = re.compile(
    r"\\pmod\s*(?:\{([^{}]*)\}|(\w))"
    r"|\(\s*(?:\\[bp]?mod(?![A-Za-z])|\\(?:text|mathrm|operatorname)\s*\{\s*mod\s*\}|mod\b)\s*([^()]*)\)"
)
_REMAINDER = re.compile(
    r"\\b?mod(?![A-Za-z])|\\(?:text|mathrm|operatorname)\s*\{\s*mod\s*\}|(?<=[\d\s)])mod(?=[\d\s(])"
)
_TRANSPOSED = re.compile(
    r"(?<=[)\]}])\s*\^\s*(?:\\top(?![A-Za-z])|\\intercal(?![A-Za-z])|T(?!\w)"
    r"|\{\s*(?:T|\\top|\\intercal|\\(?:mathsf|mathrm|text|mathbf|rm|sf)\s*(?:\{\s*T\s*\}|T))\s*\}"
    r"|\\(?:mathsf|mathrm|text)\s*\{\s*T\s*\})"
)
_SET_OF = re.compile(
    r"\\\{\s*([A-Za-z])\s*(?:\\in\s*(?:\\mathbb\s*\{?\s*R\s*\}?|ℝ)\s*)?(?:\\mid(?![A-Za-z])|[|:])(.*\b\1\b.*)\\\}"
)
_TWICE = re.compile(r"^(-?[\d.,]+)\s*\(\1\)")  # 18 (eighteen)
_OF_BASE = re.compile(
    r"(-?)([0-9A-Za-z]{1,60})\s*"
    r"(?:_\s*\{?\s*(?:\\(?:text|mathrm)\s*\{\s*)?(?P<low>\d{1,2}|[a-z]+)[\s}]*|\(?\s*base[\s-]+(?P<named>\d{1,2}|[a-z]+)\s*\)?)"
)
_NAMED_BASES = {**_UNITS, "binary": 2, "octal": 8, "decimal": 10, "hex": 16, "hexadecimal": 16, "sixteen": 16}


def spelled_out(text: str) -> str:
    r"""Return a text made by `normalize` with its numbers in digits and its signs as the parser knows them.

    "twenty-one" and "二十一" become 21, "two thirds" 2/3; \pmod{7} and (mod 7) become "pmod 7", \bmod "bmod", and
    what marks a transposed matrix "^{T}"; of {x | x > 2} the condition remains. Words that make no
    number, such as "one two", stay.
    """
    bare = (
        _RESIDUE.sub(lambda match: f" pmod {next(filter(None, match.groups()), '')} ", text) if "mod" in text else text
    )
    bare = _REMAINDER.sub(" bmod ", bare) if "mod" in bare else bare
    bare = _TRANSPOSED.sub("^{T}", bare) if "^" in bare else bare
    if described := _SET_OF.fullmatch(bare):
        bare = described[2].strip()
    if found := _HAN_NUMBER.fullmatch(bare):
        value = _han(found[2])
        return bare if value is None else f"{'-' if found[1] else ''}{value}"
    if found := _FRACTION.fullmatch(bare):
        return _fraction(found) or bare
    digits = _SPOKEN.sub(_spoken, bare)
    return digits if digits == bare else _TWICE.sub(r"\1", digits)


def numeral_of_base(text: str) -> tuple[Fraction, int] | None:
    """Return the value and the base of a numeral such as "1011_2", "1F_{16}" or "1011 (base 2)", or None."""
    match = _OF_BASE.fullmatch(text.strip())
    if match is None:
        return None
    said = match["low"] or match["named"]
    base = int(said) if said.isdigit() else _NAMED_BASES.get(said, 0)
    if not 2 <= base <= 36 or (not match[2][0].isdigit() and base <= 10):
        return None
    try:
        value = int(match[2], base)
    except ValueError:  # a digit that the base does not have
        return None
    return Fraction(-value if match[1] else value), base


def _spoken(match: re.Match[str]) -> str:
    words = _words(match[0])
    negative = words[0] in ("minus", "negative")
    value = _value(words[negative:])
    return match[0] if value is None else f"{'-' if negative else ''}{value}"


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s-]+", text.casefold()) if word != "and"]


def _value(words: list[str]) -> int | None:
    """Return the number that English words are, or None if they are none, or several."""
    for scale in reversed(_SCALES):
        if scale in words:
            place = words.index(scale)
            left, right = _value(words[:place]), _value(words[place + 1 :]) if words[place + 1 :] else 0
            if not left or right is None or left >= (10 if scale == "hundred" else 1000) or right >= _SCALES[scale]:
                return None
            return left * _SCALES[scale] + right
    if len(words) == 1:
        return _UNITS.get(words[0], _TENS.get(words[0]))
    if len(words) == 2 and words[0] in _TENS and 0 < _UNITS.get(words[1], 0) < 10:
        return _TENS[words[0]] + _UNITS[words[1]]
    return None


def _fraction(match: re.Match[str]) -> str | None:
    top = 1 if match["top"].casefold() in ("a", "an") else _value(_words(match["top"]))
    whole = _value(_words(match["whole"])) if match["whole"] else 0
    if top is None or whole is None:
        return None
    bottom = _PARTS[match["bottom"].casefold()]
    return f"{'-' if match[1] else ''}({whole * bottom + top})/{bottom}"


def _han(text: str) -> int | None:
    """Return the number that Chinese numerals are: with their scales, or digit by digit."""
    if not any(sign in _HAN_SCALES for sign in text):
        return int("".join(str(_HAN[sign]) for sign in text))
    total, section, digit = 0, 0, None
    for sign in text:
        if sign in _HAN:
            if digit:
                return None
            digit = _HAN[sign]
        elif (scale := _HAN_SCALES[sign]) >= 10**4:
            section += digit or 0
            if not section or (total and total < scale):
                return None
            total, section, digit = (total + section) * scale if not total else total + section * scale, 0, None
        else:
            if digit is None and (scale > 10 or section):
                return None
            section, digit = section + (1 if digit is None else digit) * scale, None
    return total + section + (digit or 0)
