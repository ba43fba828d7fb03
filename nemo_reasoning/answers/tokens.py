"""The tokens of a formula in LaTeX or plain text."""

import re
from typing import Any, NamedTuple

from nemo_reasoning.answers.numerals import read_numeral


class UnparsedError(Exception):
    """A text is no formula that is understood from end to end."""


class Token(NamedTuple):
    r"""A part of a formula.

    Attributes:
        kind: "number", "symbol", "constant", "function", "text" (of \text and the like, or a word), "matrix", "op".
        value: A fraction; a name; words; for a matrix its environment and the text of its cells; or the sign itself.
        spaced: Whether white space stands in front.
        start: Place in the text.
        end: Place behind it.
    """

    kind: str
    value: Any
    spaced: bool
    start: int
    end: int


FUNCTIONS = frozenset(
    re.findall(
        r"\w+",
        """
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp sqrt max min gcd lcm abs binom
        """,
    )
)
_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "tg": "tan", "cosec": "csc", "dbinom": "binom"}
_CONSTANTS = {
    "pi": "pi",
    "infty": "inf",
    "infinity": "inf",
    "inf": "inf",
    "oo": "inf",
    "e": "e",
    "i": "i",
    "imath": "i",
}
_GREEK = frozenset(
    re.findall(
        r"\w+",
        """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau
    upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar
        """,
    )
)
_OPERATORS = (
    "frac",
    "pm",
    "cup",
    "emptyset",
    "langle",
    "rangle",
    "lfloor",
    "rfloor",
    "lceil",
    "rceil",
    "in",
    "surd",
    "equiv",
)
_TEXT = re.compile(
    r"\\(text(?:bf|it|rm|sf|tt|normal)?|mathrm|mathit|mathbf|mathsf|mbox|operatorname\*?)\s*\{([^{}]*)\}"
)
_DECORATED = re.compile(r"\\(hat|bar|vec|tilde|overline|mathbb|mathcal|dot|ddot)\s*(?:\{\s*(\w)\s*\}|(\w))")
_CONJUGATED = re.compile(
    r"\\(?:overline|bar)\s*(?:(?=[zw](?![A-Za-z]))|(?=\{[^{}]*(?<![A-Za-z\\])(?:i|[zw]+)(?![A-Za-z])[^{}]*\}))"
)
_MATRIX = re.compile(r"\\begin\{(p|b|v|B|V|small|)(matrix)\}|\\begin\{(array)\}(?:\{[^{}]*\})?")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_SIGN = re.compile(r"\\\{|\\\}|\\%|\\\$|<=|>=|!=|[-+*/^_(){}\[\]|,;:=<>!%°$€£¥¢]")
_WORD = re.compile(r"[A-Za-zÀ-ɏΩμ]+")
_TRIPLE = frozenset(map(frozenset, ("abc", "xyz", "pqr", "uvw", "rst", "mnp", "klm")))
_COMPARING = frozenset(("+", "-", "*", "/", "^", "_", "(", "{", "=", "<", ">"))


def tokenize(text: str, *, decimal_comma: bool) -> list[Token]:
    """Return the tokens of a text made by `normalize`.

    Raises:
        UnparsedError: It holds something that is no token.
    """
    tokens: list[Token] = []
    place, depth = 0, 0
    while place < len(text):
        if text[place] == " ":
            place += 1
            continue
        commas = decimal_comma and (depth == 0 or ";" in text)
        numeral = (
            read_numeral(text, place, inside=depth > 0, decimal_comma=commas) if text[place] in "0123456789." else None
        )
        spaced = place > 0 and text[place - 1] == " "
        if numeral:
            tokens.append(Token("number", numeral[0], spaced, place, numeral[1]))
        else:
            tokens += _others(text, place, spaced)
            depth += (tokens[-1].value in ("(", "[", "{", r"\{")) - (tokens[-1].value in (")", "]", "}", r"\}"))
        place = tokens[-1].end
    return tokens


def _others(text: str, place: int, spaced: bool) -> list[Token]:
    if match := _MATRIX.match(text, place):
        return [_matrix(text, match, spaced)]
    if match := _TEXT.match(text, place):
        return [_text(match, spaced)]
    if match := _CONJUGATED.match(text, place):
        return [Token("function", "conjugate", spaced, place, match.end())]
    if match := _DECORATED.match(text, place):
        mark = "bar" if match[1] == "overline" else match[1]
        return [Token("symbol", f"{mark} {match[2] or match[3]}", spaced, place, match.end())]
    if match := _COMMAND.match(text, place):
        return [_command(match, spaced)]
    if match := _SIGN.match(text, place):
        return [Token("op", match[0], spaced, place, match.end())]
    if match := _WORD.match(text, place):
        return _word(text, match, spaced)
    raise UnparsedError(text[place:])


def _matrix(text: str, match: re.Match[str], spaced: bool) -> Token:
    name = (match[1] or "") + (match[2] or match[3])
    closing = f"\\end{{{name}}}"
    end = text.find(closing, match.end())
    inner = text[match.end() : end]
    if end < 0 or "\\begin" in inner:
        raise UnparsedError(text)
    rows = [row.strip() for row in re.split(r"\\\\(?:\[[^\]]*\])?", inner.replace("\\hline", " "))]
    cells = [[cell.strip() for cell in row.split("&")] for row in rows if row]
    return Token("matrix", (name, cells), spaced, match.start(), end + len(closing))


def _text(match: re.Match[str], spaced: bool) -> Token:
    words = match[2].strip()
    name = _ALIASES.get(words, words)
    upright = match[1].startswith(("mathrm", "operatorname"))
    if upright and name in FUNCTIONS:
        return Token("function", name, spaced, match.start(), match.end())
    if match[1] in ("mathrm", "text") and words in ("e", "i"):
        return Token("constant", words, spaced, match.start(), match.end())
    if match[1] in ("mathbf", "mathit", "mathsf", "textbf", "textit") and len(words) == 1:
        return Token("symbol", words, spaced, match.start(), match.end())
    return Token("text", words, spaced, match.start(), match.end())


def _command(match: re.Match[str], spaced: bool) -> Token:
    name = _ALIASES.get(match[1], match[1])
    if name in FUNCTIONS:
        kind = "function"
    elif name in _CONSTANTS and len(name) > 1:
        kind, name = "constant", _CONSTANTS[name]
    elif name in _GREEK:
        kind = "symbol"
    elif name in _OPERATORS:
        kind, name = "op", f"\\{name}"
    else:
        raise UnparsedError(match[0])
    return Token(kind, f"\\{name}" if kind == "function" and match[1] == "sqrt" else name, spaced, *match.span())


def _word(text: str, match: re.Match[str], spaced: bool) -> list[Token]:
    """Return a function, a constant, letters that are multiplied, or words."""
    word, (start, end) = match[0], match.span()
    name = _ALIASES.get(word, word)
    if name in FUNCTIONS:
        return [Token("function", name, spaced, start, end)]
    if name in _CONSTANTS:
        return [Token("constant", _CONSTANTS[name], spaced, start, end)]
    if len(word) == 1:
        return [Token("symbol", word + _primes(text, end), spaced, start, end + len(_primes(text, end)))]
    if not _are_factors(text, word, start, end):
        return [Token("text", word, spaced, start, end)]
    letters = [_word(text, part, spaced and not number) for number, part in enumerate(re.finditer(".", word))]
    return [
        token._replace(start=start + number, end=start + number + 1)
        for number, (token,) in enumerate(letters)
    ]  # fmt: skip


def _primes(text: str, end: int) -> str:
    return text[end : end + len(text[end:]) - len(text[end:].lstrip("'"))]


def _are_factors(text: str, word: str, start: int, end: int) -> bool:
    """Whether letters in a row are a product: "2ab" and "xy + 1" are, "no", "cat" and "5 km" are not."""
    if len(word) > 3 or (len(word) == 3 and frozenset(word) not in _TRIPLE):
        return False
    before, after = text[:start].rstrip()[-1:], text[end:].lstrip()[:1]
    glued = start > 0 and (text[start - 1].isdigit() or text[start - 1] in ")}]")
    return glued or before in _COMPARING or after in _COMPARING


OPENING, CLOSING = ("(", "[", "{", r"\{", r"\langle"), (")", "]", "}", r"\}", r"\rangle")


def is_sign(token: Token, *values: str) -> bool:
    """Whether a token is one of some signs or words."""
    return token.kind in ("op", "text") and token.value in values


def depths(tokens: list[Token]) -> list[tuple[Token, int]]:
    """Return each token with the brackets open around it; a closing one stands outside of itself."""
    found, depth = [], 0
    for token in tokens:
        depth -= is_sign(token, *CLOSING)
        found.append((token, depth))
        depth += is_sign(token, *OPENING)
    return found


def split(tokens: list[Token], separators: tuple[str, ...], *, flat: bool = False) -> list[list[Token]]:
    """Split at separators outside of all brackets, or with `flat` at all of them."""
    parts: list[list[Token]] = [[]]
    for token, depth in depths(tokens):
        if (flat or depth == 0) and is_sign(token, *separators):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


class Cursor:
    """Tokens, and the place up to which they are read."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens, self.place = tokens, 0

    def peek(self) -> Token | None:
        """Return the next token, if there is one."""
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def at(self, *values: str) -> bool:
        """Whether the next token is one of some signs."""
        token = self.peek()
        return token is not None and token.kind == "op" and token.value in values

    def take(self) -> Token:
        """Return the next token, and move on.

        Raises:
            UnparsedError: There is none.
        """
        token = self.peek()
        if token is None:
            raise UnparsedError("the end comes too early")
        self.place += 1
        return token

    def expect(self, value: str) -> None:
        """Move on over a sign.

        Raises:
            UnparsedError: Another token comes next.
        """
        if not self.at(value):
            raise UnparsedError(f"{value} is missing")
        self.place += 1
