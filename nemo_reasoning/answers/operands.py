"""The operands of a formula: numbers, names, functions, roots, fractions, brackets."""

from abc import abstractmethod
from fractions import Fraction

from nemo_reasoning.answers.formula import Node, number, power, product
from nemo_reasoning.answers.tokens import Cursor, Token, UnparsedError

_CLOSING = {"(": ")", "[": "]", "{": "}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}
_STARTS = ("number", "symbol", "constant", "function", "matrix")
APPLIED = frozenset("fghFGHPTu")  # letters that stand for functions in front of a bracket


class Operands(Cursor):
    """Reads one operand; what stands in its brackets is read by `expression`."""

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens)
        self._bars, self._angles = 0, 0

    @abstractmethod
    def expression(self) -> Node:
        """Read a sum."""

    @abstractmethod
    def again(self, text: str) -> Node:
        """Read another text from end to end."""

    @abstractmethod
    def _factor(self) -> Node: ...

    @abstractmethod
    def _exponent(self) -> Node: ...

    def _base(self) -> Node:
        token = self.take()
        if token.kind == "number":
            return self._mixed(token)
        if token.kind == "symbol":
            return self._symbol(token)
        if token.kind == "constant":
            if self.at("_"):
                return self._symbol(token)
            return Node("constant", token.value)
        if token.kind == "function":
            return self._function(token)
        if token.kind == "matrix":
            return self._matrix(token)
        return self._bracketed(token)

    def _mixed(self, token: Token) -> Node:
        """Return a number, a mixed one such as 2 1/2 too."""
        if self.at("_"):
            raise UnparsedError("a numeral of another base")
        fraction = self._numbers_ahead() if token.value.denominator == 1 else None
        if fraction is None:
            return number(token.value)
        top, bottom = fraction
        if not 0 < top < bottom or top.denominator != 1 or bottom.denominator != 1:
            raise UnparsedError("a mixed number with an improper fraction")
        return number(token.value + top / bottom)

    def _numbers_ahead(self) -> tuple[Fraction, Fraction] | None:
        """Take the two numbers of a fraction that follows, if it has two."""
        ahead = self.tokens[self.place : self.place + 3]
        if [one.kind for one in ahead] == ["number", "op", "number"] and ahead[1].value == "/" and ahead[0].spaced:
            self.place += 3
            return ahead[0].value, ahead[2].value
        start = self.place
        if self.at("\\frac"):
            self.place += 1
            top, bottom = self._group(), self._group()
            if top.kind == bottom.kind == "number":
                return top.value, bottom.value
        self.place = start
        return None

    def _symbol(self, token: Token) -> Node:
        name = token.value
        if self.at("_"):
            self.place += 1
            start = self.place
            self._group()
            name += "_" + "".join(
                str(one.value) for one in self.tokens[start : self.place] if one.value not in ("{", "}")
            )
        if name in APPLIED and self.at("(") and not self.tokens[self.place].spaced:
            return Node("call", name, self._arguments())
        if name == "Gamma" and self.at("("):
            return Node("call", "gamma", self._arguments())
        return Node("symbol", name)

    def _arguments(self) -> tuple[Node, ...]:
        opening = self.take().value
        found = [self.expression()]
        while self.at(",", ";"):
            self.place += 1
            found.append(self.expression())
        self.expect(_CLOSING[opening])
        return tuple(found)

    def _group(self) -> Node:
        """Return what a command of LaTeX takes: a group in braces, or a single sign."""
        if self.at("{"):
            self.place += 1
            found = self.expression()
            self.expect("}")
            return found
        token = self.peek()
        if token is not None and token.kind == "number":
            return self._digit()
        if token is None or token.kind not in ("symbol", "constant"):
            raise UnparsedError("an operand is missing")
        self.place += 1
        return Node(token.kind, token.value)

    def _digit(self) -> Node:
        """Take one digit off a numeral, as LaTeX does: its fraction of 12 is a half."""
        token = self.tokens[self.place]
        if token.end - token.start == 1:
            self.place += 1
            return number(token.value)
        if token.end - token.start != 2 or token.value.denominator != 1:
            raise UnparsedError("digits that can be read in two ways")
        first, second = divmod(int(token.value), 10)
        self.tokens[self.place] = token._replace(value=Fraction(second), start=token.start + 1)
        return number(first)

    def _function(self, token: Token) -> Node:
        name = token.value.lstrip("\\")
        if name == "sqrt":
            return self._root(latex=token.value != name)
        if name == "conjugate":
            return Node("call", name, (self._group(),))
        if name == "binom":
            return Node("call", name, self._arguments() if self.at("(") else (self._group(), self._group()))
        base, exponent = None, None
        for _ in range(2):
            if self.at("_") and base is None:
                self.place += 1
                base = self._group()
            elif self.at("^") and exponent is None:
                self.place += 1
                exponent = self._exponent()
        self._angles += 1
        arguments = self._function_arguments()
        self._angles -= 1
        if exponent == number(-1) and name in ("sin", "cos", "tan"):
            return Node("call", "arc" + name, arguments)
        found = Node("call", name, (*arguments, base) if base is not None else arguments)
        return found if exponent is None else power(found, exponent)

    def _function_arguments(self) -> tuple[Node, ...]:
        if self.at("(", "[", "{"):
            found = self._arguments()
            if self.at("^"):
                raise UnparsedError("sin(x)^2 can be read in two ways")
            return found
        factors = [self._factor()]
        while (token := self.peek()) is not None and token.kind in ("symbol", "constant"):
            factors.append(self._factor())
        following = self.tokens[self.place + 1 : self.place + 2]
        if self.at("(") or (self.at("/") and not (following and following[0].kind == "function")):
            raise UnparsedError("ln 2/3 can be read in two ways")
        return (product(*factors),)

    def _root(self, *, latex: bool) -> Node:
        index = number(2)
        if self.at("[") and latex:
            self.place += 1
            index = self.expression()
            self.expect("]")
        if self.at("(") or (not latex and self.at("{")):
            (radicand,) = self._arguments()
        elif latex:
            radicand = self._group()
            following = self.peek()
            if following is not None and following.kind == "number" and not following.spaced:
                raise UnparsedError("digits that can be read in two ways")
        else:
            radicand = self._base()
            if (token := self.peek()) is not None and token.kind in _STARTS:
                raise UnparsedError("sqrt 2x can be read in two ways")
        return Node("call", "root", (radicand, index))

    def _matrix(self, token: Token) -> Node:
        name, rows = token.value
        if name not in ("pmatrix", "bmatrix", "matrix", "smallmatrix", "array") or len(set(map(len, rows))) != 1:
            raise UnparsedError(f"{name} is not understood")
        cells = tuple(self.again(cell) for row in rows for cell in row)
        return Node("matrix", (len(rows), len(rows[0])), cells)

    def _bracketed(self, token: Token) -> Node:
        if token.value == "\\frac":
            return self._fraction()
        if token.value == "\\surd":
            return self._root(latex=False)
        if token.value == "|":
            self._bars += 1
            found = Node("call", "abs", (self.expression(),))
            self._bars -= 1
            self.expect("|")
            return found
        if token.value not in _CLOSING:
            raise UnparsedError(f"{token.value} is no operand")
        found = self.expression()
        self.expect(_CLOSING[token.value])
        if token.value in ("\\lfloor", "\\lceil"):
            return Node("call", "floor" if token.value == "\\lfloor" else "ceiling", (found,))
        return found

    def _fraction(self) -> Node:
        derivative = self._differential()
        top = self._group()
        derivative = derivative and self._differential()
        bottom = self._group()
        if derivative:
            raise UnparsedError("a derivative is not understood")
        if (token := self.peek()) is not None and token.kind == "number" and not token.spaced:
            raise UnparsedError("digits that can be read in two ways")
        if top.kind == "number" and bottom.kind == "number" and bottom.value:
            return number(top.value / bottom.value)
        return product(top, power(bottom, number(-1)))

    def _differential(self) -> bool:
        """Whether the next group begins with a d."""
        tokens = [token for token in self.tokens[self.place : self.place + 2] if token.value != "{"]
        return bool(tokens) and tokens[0].value == "d"
