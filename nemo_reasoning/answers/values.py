"""Answers as values: numbers and formulas with units, tuples, sets and the like, equations."""

import re
from contextlib import suppress
from typing import NamedTuple

from nemo_reasoning.answers.formula import Node, negated, number
from nemo_reasoning.answers.operands import APPLIED
from nemo_reasoning.answers.parser import Parser
from nemo_reasoning.answers.spoken import numeral_of_base, spelled_out
from nemo_reasoning.answers.tokens import (
    CLOSING,
    OPENING,
    Token,
    UnparsedError,
    depths,
    is_sign,
    split,
    tokenize,
)
from nemo_reasoning.answers.units import Unit, parse_unit


class Scalar(NamedTuple):
    """A formula, with the unit behind it if there is one.

    Attributes:
        formula: A number, an expression or a matrix.
        unit: None without one.
        certain: Whether the unit can be nothing else; "5m" may also be five times m.
        base: In which the numeral is written: 2 of "101_2".
    """

    formula: Node
    unit: Unit | None = None
    certain: bool = True
    base: int = 10


class Group(NamedTuple):
    """Several answers in one.

    Attributes:
        kind: "list" without brackets, "tuple" in round or square ones (vectors and intervals too), "set", "union" or
            "ratio".
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

_RELATIONS = {"=": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=", r"\in": "in", r"\equiv": "="}
_FLIPPED = {">": "<", ">=": "<="}
_UNIT_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|mathrm|mbox|operatorname)\s*\{([^{}]*)\}")
_CURRENCIES = ("$", r"\$", "€", "£", "¥", "¢")
_CLOCK = re.compile(r"[0-2]?\d(?::[0-5]\d){1,2}")
_LEAD = re.compile(r"(?:\\approx|\\sim|=|:)\s*")


def readings(text: str) -> list[Value]:
    """Return every way to read a text made by `normalize`: as nothing, where no reading takes in all of it.

    "3,5" is a decimal fraction in most countries of the world, and two numbers in the others.
    """
    found: list[Value] = []
    text = spelled_out(_LEAD.sub("", text, count=1) if _LEAD.match(text) else text)
    for decimal_comma in (False, True) if re.search(r"\d,[\d(\\]", text) else (False,):
        try:
            found += _Reader(text, decimal_comma).read()
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
        unions = split(tokens, (r"\cup",), flat=True)
        if len(unions) > 1:
            return [Group("union", "", self._each(unions))]
        listed = split(tokens, (",", ";", "and", "or"))
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
        sides = split(tokens, tuple(_RELATIONS))
        if len(sides) > 1:
            operators = [token.value for token, depth in depths(tokens) if depth == 0 and is_sign(token, *_RELATIONS)]
            return [_relation([_RELATIONS[operator] for operator in operators], self._each(sides))]
        if sum(is_sign(token, r"\pm") for token in tokens) == 1:
            place = next(token for token in tokens if is_sign(token, r"\pm"))
            both = [self._text[: place.start] + sign + self._text[place.end :] for sign in "+-"]
            return [Group("list", "", tuple(tuple(self._again(text)) for text in both))]
        if group := self._enclosed(tokens) or self._transposed(tokens):
            return [group]
        if ratio := self._ratio(tokens):
            return [ratio]
        if numeral := numeral_of_base(self._slice(tokens)):
            return [Scalar(number(numeral[0]), base=numeral[1])]
        if residue := self._residue(tokens):
            return [residue]
        return self._scalars(tokens)

    def _ratio(self, tokens: list[Token]) -> Group | None:
        """Return a ratio such as 1:2:3; what may be a time of day, such as 12:30, is none."""
        parts = split(tokens, (":",))
        if len(parts) < 2 or _CLOCK.fullmatch(self._slice(tokens)):
            return None
        return Group("ratio", "", self._each(parts))

    def _transposed(self, tokens: list[Token]) -> Group | None:
        """Return a column written as a row to be transposed, such as (1, 2)^T."""
        if len(tokens) < 5 or [token.value for token in tokens[-4:]] != ["^", "{", "T", "}"]:
            return None
        row = self._enclosed(tokens[:-4])
        flat = (
            row is not None
            and row.brackets in ("()", "[]")
            and not any(isinstance(one, Group) for item in row.items for one in item)
        )
        return row._replace(brackets="()") if row is not None and flat else None

    def _residue(self, tokens: list[Token]) -> Scalar | None:
        """Return a class of numbers, such as 3 (mod 7), by its least one that is not negative."""
        place = next((place for place, token in enumerate(tokens) if is_sign(token, "pmod")), None)
        if place is None:
            return None
        modulus = Parser(tokens[place + 1 :], decimal_comma=self._decimal_comma).whole()
        formula = Parser(tokens[:place], decimal_comma=self._decimal_comma).whole()
        return Scalar(Node("call", "residue", (Node("call", "mod", (formula, modulus)), modulus)))

    def _enclosed(self, tokens: list[Token]) -> Group | None:
        """Return a tuple, an interval (also as ]0, 1[) or a set, or None where the brackets only group."""
        first, last = tokens[0], tokens[-1]
        if is_sign(first, r"\emptyset") and len(tokens) == 1:
            return Group("set", "", ())
        if len(tokens) < 2 or not (is_sign(first, *OPENING, "]") and is_sign(last, *CLOSING, "[")):
            return None
        inner = tokens[1:-1]
        foreign = is_sign(first, "]") or is_sign(last, "[")
        if not foreign and any(depth == 0 for _, depth in depths(tokens)[1:-1]):
            return None
        is_set = is_sign(first, r"\{", "{") and is_sign(last, r"\}", "}")
        if is_set and not inner:
            return Group("set", "", ())
        items = split(inner, (",", ";"))
        if len(items) < 2 and not is_sign(first, r"\{"):
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
        last = len(tokens) - bool(found and is_sign(tokens[-1], "°"))  # of sin 30° the sign is read already
        found += filter(None, (self._with_unit(tokens, place) for place in range(1, last)))
        if any(isinstance(one, Scalar) and one.unit is not None and one.certain for one in found):
            found = [one for one in found if isinstance(one, Scalar) and one.unit is not None]
        if not found:
            raise UnparsedError(self._text)
        return found[:3]

    def _money(self, tokens: list[Token]) -> Scalar | None:
        """Return an amount with its currency in front."""
        sign = is_sign(tokens[0], "-", "+")
        if len(tokens) < 2 + sign or not is_sign(tokens[sign], *_CURRENCIES):
            return None
        unit = parse_unit(tokens[sign].value.lstrip("\\"), words=False)
        behind = [place for place in range(sign + 1, len(tokens)) if tokens[place].kind == "text"]
        amount = Parser(tokens[sign + 1 :], decimal_comma=self._decimal_comma)
        formula = _scaled(amount.expression(), tokens[behind[0] :]) if behind else amount.expression()
        if not behind and amount.peek() is not None:
            raise UnparsedError(self._text)
        return Scalar(negated(formula) if is_sign(tokens[0], "-") else formula, unit)

    def _with_unit(self, tokens: list[Token], place: int) -> Scalar | None:
        """Return the formula in front of a place with the unit from there on, or None."""
        first = tokens[place]
        letters = first.kind in ("text", "symbol", "constant") or first.value == "min"
        if not (letters or is_sign(first, "%", r"\%", "°", *_CURRENCIES)):
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
    if left is None or not (left.formula.kind == "symbol" or left.formula.value in APPLIED):
        return None
    return left.formula


def _solutions(group: Group) -> Value:
    """Return "x = 1 or x = 2" as what x is equal to."""
    names = {name_of(item[0]) if len(item) == 1 else None for item in group.items}
    relations = [item[0] for item in group.items if isinstance(item[0], Relation)]
    if len(names) != 1 or None in names or {one.operators for one in relations} != {("=",)}:
        return group
    values = tuple(one.sides[1] for one in relations)
    return Relation(("=",), (relations[0].sides[0], (Group("list", "", values),)))
