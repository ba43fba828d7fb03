"""One spelling for characters and mark-up that mean the same: digits of all scripts, signs, LaTeX's spacing."""

import re
import unicodedata
from functools import lru_cache

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿˣⁱ", "0123456789+-()nxi", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_RAISED = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_LOWERED = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_VULGAR = re.compile("[¼-¾⅐-⅞↉]")
_FRACTION_SLASH = "⁄"
_SYMBOLS = {
    **dict.fromkeys("−﹣‐‑", "-"),
    **dict.fromkeys("×✕⋅∙·∗", "*"),
    **dict.fromkeys("÷∕" + _FRACTION_SLASH, "/"),
    **dict.fromkeys("‘’′‵ʹ", "'"),
    **dict.fromkeys("“”„«»″", '"'),
    **dict.fromkeys("\u00a0\u202f\u2007\u2008\u2009\u200a\u2002\u2003\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u200e\u200f\u00ad", ""),
    **{"∞": r"\infty ", "π": r"\pi ", "√": r"\surd ", "∛": r"\sqrt[3]", "≤": "<=", "⩽": "<=", "≥": ">=", "⩾": ">="},
    **{"≠": "!=", "≡": r"\equiv ", "±": r"\pm ", "∪": r"\cup ", "∅": r"\emptyset ", "∈": r"\in ", "θ": r"\theta "},
    **{"α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ", "φ": r"\phi ", "ω": r"\omega "},
    **{"₹": " inr ", "،": ",", "؛": ";", "٫": ".", "٬": ",", "٪": "%", "、": ",", "º": "°", "µ": "μ", "≈": r"\approx "},
    **{"⟨": r"\langle ", "⟩": r"\rangle "},
}
_PRIME_GROUPS = re.compile(r"(?<=\d)['’](?=\d{3}(?!\d))")
_MATH = re.compile(
    r"\$\$(.+?)\$\$|\$(?!\s)([^$]*?[^$\s])\$(?!\d)"
    r"|\\\(((?:[^\\]|\\(?![()]))++)\\\)|\\\[((?:[^\\]|\\(?![\[\]]))++)\\\]",
    re.DOTALL,
)
_WHOLE = re.compile(r"\\(?:f?boxed|text(?:bf|it|rm)?|mathrm|mathbf)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_SHORT = 400  # characters of what is remembered
_MARK_UP, _LAYERS = " \t\r\n*`", 20
_SPACING = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|strut|mathstrut)(?![A-Za-z])"
)
_SPACE = re.compile(r"\\(?:quad|qquad|thinspace|enspace|hspace\{[^{}]*\})(?![A-Za-z])|(?<!\\)\\[,;:! >\n]|~")
_ALIASES = (
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\[lr]?vert(?![A-Za-z])"), "|"),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\(?:leqslant|leqq|leq|le)(?![A-Za-z])"), "<="),
    (re.compile(r"\\(?:geqslant|geqq|geq|ge)(?![A-Za-z])"), ">="),
    (re.compile(r"\\(?:neq|ne)(?![A-Za-z])"), "!="),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\(?:cdot|times|ast)(?![A-Za-z])|\*\*(?=\s*[*])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)"), "*"),
    (re.compile(r"\\varnothing(?![A-Za-z])"), r"\\emptyset "),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degree(?![A-Za-z])"), "°"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\{\.\}"), "."),
)


def normalize(answer: str) -> str:
    """Return an answer with one spelling for what means the same; letters keep their case.

    Digits of any script become ASCII, full-width characters too; "½" becomes a fraction, "x²" a power; Markdown
    and dollar signs around mathematics go, a dollar sign in front of an amount stays.
    """
    return (_remembered if len(answer) <= _SHORT else _normalized)(answer)


def _normalized(answer: str) -> str:
    bare = re.sub(r"^[–—](?=\s?[\d.\\])", "-", unwrap(digits(answer)))
    bare = "".join(_SYMBOLS.get(character, character) for character in bare)
    for pattern, replacement in _ALIASES:
        bare = pattern.sub(replacement, bare)
    bare = re.sub(r"(?<=\d)(?:\\[,;: ]|~)(?=\d{3}(?!\d))", " ", _SPACING.sub(" ", bare))
    bare = " ".join(_SPACE.sub(" ", bare).split())
    return unwrap(bare).rstrip("。").removesuffix(".").rstrip()


_remembered = lru_cache(maxsize=4096)(_normalized)  # a line is compared with each choice, in each reading


def digits(text: str) -> str:
    """Return a text with ASCII digits and full-width characters as ASCII, superscripts as powers.

    Vulgar fractions become "1/2", behind a digit with a space in front, as a mixed number has it.
    """
    if text.isascii():
        return text
    text = _VULGAR.sub(_fraction, text)
    text = re.sub(rf"(?<!\d)(\d++)\s*{_FRACTION_SLASH}\s*(\d+)", r"\1/\2", text)
    text = _RAISED.sub(lambda match: "^{" + "".join(map(_SUPERSCRIPTS.get, match[0])) + "}", text)  # type: ignore[arg-type]
    text = _LOWERED.sub(lambda match: "_{" + "".join(map(_SUBSCRIPTS.get, match[0])) + "}", text)  # type: ignore[arg-type]
    return "".join(map(_plain_character, text))


def _fraction(match: re.Match[str]) -> str:
    spelled = unicodedata.normalize("NFKC", match[0]).replace(_FRACTION_SLASH, "/")
    text, before = match.string, match.start()
    while before and text[before - 1].isspace():
        before -= 1
    mixed = before > 0 and text[before - 1].isdigit()
    return f" {spelled}" if mixed else f"({spelled})"


def _plain_character(character: str) -> str:
    decimal = unicodedata.decimal(character, None)
    if decimal is not None:
        return str(decimal)
    if "\uff01" <= character <= "\uff5e" or character in "￥￡￠":
        return unicodedata.normalize("NFKC", character)
    return character


def unwrap(text: str) -> str:
    """Take Markdown, quotes and the signs of mathematics off a text; an unpaired dollar sign is money and stays."""
    for _ in range(_LAYERS):
        bare = text.strip(_MARK_UP)
        if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
            bare = bare[1:-1]
        if whole := _WHOLE.fullmatch(bare):
            bare = whole[1]
        bare = _MATH.sub(lambda match: next(filter(None, match.groups()), ""), bare)
        if bare == text:
            break
        text = bare
    return text
