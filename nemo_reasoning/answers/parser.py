"""Parse formulas: a text is understood from end to end, or not at all."""

from fractions import Fraction

from nemo_reasoning.answers.formula import Node, negated, number, power, product
from nemo_reasoning.answers.operands import Operands
from nemo_reasoning.answers.tokens import Token, UnparsedError, tokenize

_OPENING = ("(", "[", "{", "\\frac", "\\surd", "\\lfloor", "\\lceil")
_DEEPEST = 60


class Parser(Operands):
    """Reads one expression from a list of tokens, as far as it goes."""

    def __init__(self, tokens: list[Token], *, decimal_comma: bool) -> None:
        super().__init__(tokens)
        self._decimal_comma, self._depth = decimal_comma, 0

    def again(self, text: str) -> Node:
        """Read another text from end to end.

        Raises:
            UnparsedError: It is no formula.
        """
        tokens = tokenize(text, decimal_comma=self._decimal_comma)
        return Parser(tokens, decimal_comma=self._decimal_comma).whole()

    def expression(self) -> Node:
        """Read a sum.

        Raises:
            UnparsedError: There is none, or it can be read in two ways.
        """
        self._depth += 1
        if self._depth > _DEEPEST:
            raise UnparsedError("nested too deeply")
        terms = [self._term(self._signs())]
        while self.at("+", "-"):
            terms.append(self._term(self._signs()))
        self._depth -= 1
        if (token := self.peek()) is not None and token.kind == "text" and token.value == "bmod":
            return self._remainder(terms)
        return terms[0] if len(terms) == 1 else Node("add", None, tuple(terms))

    def _remainder(self, terms: list[Node]) -> Node:
        if len(terms) > 1:
            raise UnparsedError("1 + 17 mod 5 can be read in two ways")
        self.take()
        return Node("call", "mod", (terms[0], self._factor()))

    def whole(self) -> Node:
        """Read a sum that takes in every token.

        Raises:
            UnparsedError: There is none.
        """
        found = self.expression()
        if self.peek() is not None:
            raise UnparsedError("something follows")
        return found

    def _signs(self) -> bool:
        negative = False
        while self.at("+", "-"):
            negative ^= self.take().value == "-"
        return negative

    def _term(self, negative: bool) -> Node:
        factors, divided = [self._factor()], False
        while True:
            if self.at("*", "/"):
                divided = self.take().value == "/"
                minus = self._signs()
                factor = self._factor()
                factor = negated(factor) if minus else factor
                factors.append(power(factor, number(-1)) if divided else factor)
            elif self._multiplies():
                if divided:
                    raise UnparsedError("1/2x can be read in two ways")
                factors.append(self._factor())
            else:
                break
        found = product(*factors)
        return negated(found) if negative else found

    def _multiplies(self) -> bool:
        """Whether the next token is a factor without a sign in front."""
        token = self.peek()
        if token is None or token.kind == "text":
            return False
        if token.kind == "op" and token.value not in _OPENING and (token.value != "|" or self._bars):
            return False
        if token.kind == "number":
            raise UnparsedError("a number behind a factor can be read in two ways")
        return True

    def _factor(self) -> Node:
        base = self._base()
        while True:
            if base.kind == "matrix" and self.at("^"):
                base = self._transposed(base)
            elif self.at("^"):
                self.place += 1
                base = power(base, self._exponent())
            elif self.at("!"):
                self.place += 1
                if self.at("!", "="):
                    raise UnparsedError("a double factorial is not understood")
                base = Node("call", "factorial", (base,))
            elif self.at("°") and (self._angles or self.place + 1 < len(self.tokens)):
                self.place += 1
                base = product(base, Node("constant", "pi"), number(Fraction(1, 180)))
            else:
                return base

    def _transposed(self, matrix: Node) -> Node:
        """Return the matrix in front of an exponent T with rows and columns exchanged."""
        if [token.value for token in self.tokens[self.place : self.place + 4]] != ["^", "{", "T", "}"]:
            raise UnparsedError("powers of matrices are not understood")
        self.place += 4
        rows, columns = matrix.value
        cells = tuple(matrix.parts[row * columns + column] for column in range(columns) for row in range(rows))
        return Node("matrix", (columns, rows), cells)

    def _exponent(self) -> Node:
        if self.at("-", "+"):
            negative = self._signs()
            found = self._exponent()
            return negated(found) if negative else found
        found = self._base()
        if self.at("^"):
            self.place += 1
            return power(found, self._exponent())
        return found
