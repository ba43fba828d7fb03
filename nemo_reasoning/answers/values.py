"""Answers as values: numbers and formulas with units, tuples, sets and the like, equations."""

import re
from contextlib import suppress
from typing import NamedTuple

from nemo_reasoning.answers.formula import Node, negated, number
from nemo_reasoning.answers.parser import Parser
from nemo_reasoning.answers.tokens import Token, UnparsedError, tokenize
from nemo_reasoning.answers.units import Unit, parse_unit


class Scalar(NamedTuple):
    """A formula, with the unit behind it if there is one.

    Attributes:
        formula: A number, an expression or a matrix.
        unit: None without one.
        certain: Whether the unit can be nothing else; "5m" may also be five times m.
    """

    formula: Node
    unit: Unit | None = None
    certain: bool = True


class Group(NamedTuple):
    """Several answers in one.

    Attributes:
        kind: "list" without brackets, "tuple" in round or square ones (vectors and intervals too), "set" or "union".
        brackets: Those around a tuple, such as "()" or "[)".
        items: The readings of each member.
    """

    kind: str
    brackets: str
    items: tuple[tuple["Value", ...], ...]


class Relation(NamedTuple):
    """An equation, an inequality or a chain of them.

    Attributes:
        operators: "=", "!=", "<", "<=" or "in" between the sides.
        sides: The readings of each.
    """

    operators: tuple[str, ...]
    sides: tuple[tuple["Value", ...], ...]


Value = Scalar | Group | Relation

_OPENING, _CLOSING = ("(", "[", "{", r"\{", r"\langle"), (")", "]", "}", r"\}", r"\rangle")
_RELATIONS = {"=": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=", r"\in": "in"}
_FLIPPED = {">": "<", ">=": "<="}
_UNIT_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|mathrm|mbox|operatorname)\s*\{([^{}]*)\}")
_CURRENCIES = ("$", r"\$", "€", "£", "¥", "¢")
_LEAD = re.compile(r"(?:\\approx|\\sim|=|:)\s*")


def readings(text: str) -> list[Value]:
    """Return every way to read a text made by `normalize`: as nothing, where no reading takes in all of it.

    "3,5" is a decimal fraction in most countries of the world, and two numbers in the others.
    """
    found: list[Value] = []
    for decimal_comma in (False, True) if re.search(r"\d,\d", text) else (False,):
        try:
            found += _Reader(_LEAD.sub("", text, count=1) if _LEAD.match(text) else text, decimal_comma).read()
        except UnparsedError:
            continue
    return found


class _Reader:
    def __init__(self, text: str, decimal_comma: bool) -> None:
        self._text, self._decimal_comma = text, decimal_comma

    def read(self) -> list[Value]:
        tokens = tokenize(self._text, decimal_comma=self._decimal_comma)
        if not tokens:
            raise UnparsedError(self._text)
        unions = _split(tokens, (r"\cup",), flat=True)
        if len(unions) > 1:
            return [Group("union", "", self._each(unions))]
        listed = _split(tokens, (",", ";", "and", "or"))
        items = [item for item in listed if item]
        if len(items) > 1:
            return [_solutions(Group("list", "", self._each(items)))]
        if len(listed) > 1:
            raise UnparsedError("a separator that separates nothing")
        return self._single(tokens)

    def _each(self, items: list[list[Token]]) -> tuple[tuple[Value, ...], ...]:
        return tuple(tuple(self._again(self._slice(item))) for item in items)

    def _slice(self, tokens: list[Token]) -> str:
        if not tokens:
            raise UnparsedError("a member is missing")
        return self._text[tokens[0].start : tokens[-1].end]

    def _again(self, text: str) -> list[Value]:
        return _Reader(text, self._decimal_comma).read()

    def _single(self, tokens: list[Token]) -> list[Value]:
        sides = _split(tokens, tuple(_RELATIONS))
        if len(sides) > 1:
            operators = [token.value for token, depth in _depths(tokens) if depth == 0 and _is(token, *_RELATIONS)]
            return [_relation([_RELATIONS[operator] for operator in operators], self._each(sides))]
        if sum(_is(token, r"\pm") for token in tokens) == 1:
            place = next(token for token in tokens if _is(token, r"\pm"))
            both = [self._text[: place.start] + sign + self._text[place.end :] for sign in "+-"]
            return [Group("list", "", tuple(tuple(self._again(text)) for text in both))]
        if group := self._enclosed(tokens):
            return [group]
        return self._scalars(tokens)

    def _enclosed(self, tokens: list[Token]) -> Group | None:
        """Return a tuple, an interval (also as ]0, 1[) or a set, or None where the brackets only group."""
        first, last = tokens[0], tokens[-1]
        if _is(first, r"\emptyset") and len(tokens) == 1:
            return Group("set", "", ())
        if len(tokens) < 2 or not (_is(first, *_OPENING, "]") and _is(last, *_CLOSING, "[")):
            return None
        inner = tokens[1:-1]
        foreign = _is(first, "]") or _is(last, "[")
        if not foreign and any(depth == 0 for _, depth in _depths(tokens)[1:-1]):
            return None
        is_set = _is(first, r"\{", "{") and _is(last, r"\}", "}")
        if is_set and not inner:
            return Group("set", "", ())
        items = _split(inner, (",", ";"))
        if len(items) < 2 and not _is(first, r"\{"):
            return None
        if is_set:
            return Group("set", "", self._each(items))
        left = {"]": "(", r"\langle": "(", r"\{": "{"}.get(first.value, first.value)
        right = {"[": ")", r"\rangle": ")", r"\}": "}"}.get(last.value, last.value)
        if "{" in left or "}" in right:
            raise UnparsedError("brackets that do not fit")
        return Group("tuple", left + right, self._each(items))

    def _scalars(self, tokens: list[Token]) -> list[Value]:
        money = self._money(tokens)
        if money is not None:
            return [money]
        found: list[Value] = []
        with suppress(UnparsedError):
            found.append(Scalar(Parser(list(tokens), decimal_comma=self._decimal_comma).whole()))
        last = len(tokens) - bool(found and _is(tokens[-1], "°"))  # of sin 30° the sign is read already
        found += filter(None, (self._with_unit(tokens, place) for place in range(1, last)))
        if any(isinstance(one, Scalar) and one.unit is not None and one.certain for one in found):
            found = [one for one in found if isinstance(one, Scalar) and one.unit is not None]
        if not found:
            raise UnparsedError(self._text)
        return found[:3]

    def _money(self, tokens: list[Token]) -> Scalar | None:
        """Return an amount with its currency in front."""
        sign = _is(tokens[0], "-", "+")
        if len(tokens) < 2 + sign or not _is(tokens[sign], *_CURRENCIES):
            return None
        unit = parse_unit(tokens[sign].value.lstrip("\\"), words=False)
        behind = [place for place in range(sign + 1, len(tokens)) if tokens[place].kind == "text"]
        amount = Parser(tokens[sign + 1 :], decimal_comma=self._decimal_comma)
        formula = _scaled(amount.expression(), tokens[behind[0] :]) if behind else amount.expression()
        if not behind and amount.peek() is not None:
            raise UnparsedError(self._text)
        return Scalar(negated(formula) if _is(tokens[0], "-") else formula, unit)

    def _with_unit(self, tokens: list[Token], place: int) -> Scalar | None:
        """Return the formula in front of a place with the unit from there on, or None."""
        first = tokens[place]
        letters = first.kind in ("text", "symbol", "constant") or first.value == "min"
        if not (letters or _is(first, "%", r"\%", "°", *_CURRENCIES)):
            return None
        bare = _UNIT_TEXT.sub(r" \1 ", self._text[first.start : tokens[-1].end]).replace("\\%", "%").replace("\\$", "$")
        try:
            formula = Parser(tokens[:place], decimal_comma=self._decimal_comma).whole()
        except UnparsedError:
            return None
        word, _, behind = bare.strip().partition(" ")
        if first.kind == "text" and (scaled := _large(word)):
            formula, bare = Node("mul", None, (formula, number(scaled))), behind.strip()
            if not bare:
                return Scalar(formula)
        unit = parse_unit(bare, words=first.kind == "text")
        if unit is None:
            return None
        single = len(re.split(r"[\^/]", bare)[0].strip()) == 1
        if first.kind in ("symbol", "constant") and formula.kind != "number":
            return None
        certain = first.kind not in ("symbol", "constant") or first.spaced or not single
        return Scalar(formula, unit, certain)


_LARGE = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_LARGE |= {"dozen": 12, "lakh": 10**5, "crore": 10**7}


def _large(word: str) -> int | None:
    return _LARGE.get(word.strip().casefold())


def _scaled(formula: Node, rest: list[Token]) -> Node:
    """Return an amount times the word behind it: million and the like."""
    scale = _large(str(rest[0].value)) if len(rest) == 1 else None
    if scale is None:
        raise UnparsedError("words behind an amount")
    return Node("mul", None, (formula, number(scale)))


def _is(token: Token, *values: str) -> bool:
    return token.kind in ("op", "text") and token.value in values


def _depths(tokens: list[Token]) -> list[tuple[Token, int]]:
    """Return each token with the brackets open around it; a closing one stands outside of itself."""
    found, depth = [], 0
    for token in tokens:
        depth -= _is(token, *_CLOSING)
        found.append((token, depth))
        depth += _is(token, *_OPENING)
    return found


def _split(tokens: list[Token], separators: tuple[str, ...], *, flat: bool = False) -> list[list[Token]]:
    """Split at separators outside of all brackets, or with `flat` at all of them."""
    parts: list[list[Token]] = [[]]
    for token, depth in _depths(tokens):
        if (flat or depth == 0) and _is(token, *separators):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _relation(operators: list[str], sides: tuple[tuple[Value, ...], ...]) -> Value:
    if all(operator in (">", ">=") for operator in operators):
        operators, sides = [_FLIPPED[operator] for operator in reversed(operators)], sides[::-1]
    if any(operator in _FLIPPED for operator in operators):
        raise UnparsedError("a chain of inequalities in both directions")
    return Relation(tuple(operators), sides)


def name_of(value: Value) -> Node | None:
    """Return the name that an equation or a membership gives a value to: of "x = 5" it is x."""
    if not isinstance(value, Relation) or len(value.operators) != 1 or value.operators[0] not in ("=", "in"):
        return None
    left = next((one for one in value.sides[0] if isinstance(one, Scalar) and one.unit is None), None)
    if left is None or left.formula.kind not in ("symbol", "call") or left.formula.value in _KNOWN_CALLS:
        return None
    return left.formula


_KNOWN_CALLS = ("root", "abs", "sin", "cos", "tan", "ln", "log", "exp", "factorial", "binom", "floor", "ceiling")


def _solutions(group: Group) -> Value:
    """Return "x = 1 or x = 2" as what x is equal to."""
    names = {name_of(item[0]) if len(item) == 1 else None for item in group.items}
    relations = [item[0] for item in group.items if isinstance(item[0], Relation)]
    if len(names) != 1 or None in names or {one.operators for one in relations} != {("=",)}:
        return group
    values = tuple(one.sides[1] for one in relations)
    return Relation(("=",), (relations[0].sides[0], (Group("list", "", values),)))
