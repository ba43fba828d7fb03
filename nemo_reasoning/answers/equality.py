"""Tell whether two answers are the same: numbers, units, tuples, intervals, sets, formulas, words."""

import re
from collections.abc import Sequence
from fractions import Fraction

from nemo_reasoning.answers.deadline import start_clock
from nemo_reasoning.answers.formula import Node, negated, number, product, symbols
from nemo_reasoning.answers.symbolic import proportional, rational, same_formula
from nemo_reasoning.answers.text import normalize
from nemo_reasoning.answers.tokens import UnparsedError
from nemo_reasoning.answers.units import DEGREE, PERCENT, RADIAN
from nemo_reasoning.answers.values import Group, Relation, Scalar, Value, name_of, readings

_LONGEST = 400  # characters of an answer that is read as mathematics
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|mathrm|mathit|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[^\W\d_]{3,}|\bno\b", re.IGNORECASE)
_INFINITY = Node("constant", "inf")


def answers_equal(first: str, second: str) -> bool:
    r"""Tell whether two answers are the same.

    Both are read from end to end, as numbers, formulas, tuples, sets, equations; where one cannot be, they are the
    same only if they are spelled the same. Nothing is rounded: "1,234" equals "1234.0" and "0.5" equals "1/2", 0.333
    and 1/3 differ. Formulas are equal if that is proven. A unit counts only where both have one, and units of one
    kind are converted exactly. Tuples and intervals compare in order and with their brackets, sets and bare lists in
    any order. Words compare in any case.
    """
    left, right = normalize(first), normalize(second)
    if spelled(left) == spelled(right):
        return True
    if not left or not right or max(len(left), len(right)) > _LONGEST:
        return False
    start_clock()
    return any(_at_top(one, other) for one in readings(left) for other in readings(right))


def as_number(answer: str) -> Fraction | None:
    """Return the exact number that an answer is, whatever its unit, or None if it is anything else."""
    bare = normalize(answer)
    found = readings(bare) if len(bare) <= _LONGEST else []
    try:
        return next(
            (value for one in found if isinstance(one, Scalar) and (value := rational(one.formula)) is not None), None
        )
    except UnparsedError:
        return None


def spelled(text: str) -> str:
    """Return a text without mark-up and superfluous space; words lose their case, symbols do not."""
    bare = _TEXT.sub(r" \1 ", text)
    bare = re.sub(r"(?<![^\W_]) +| +(?![^\W_])", "", " ".join(bare.split()))
    return bare.casefold() if _WORDS.search(re.sub(r"\\[A-Za-z]+", " ", bare)) else bare


def _at_top(first: Value, second: Value) -> bool:
    """Compare whole answers: "x =" may stand in front of one of them."""
    try:
        left, right = _last_of_chain(first), _last_of_chain(second)
        if name_of(left) is not None and name_of(right) is None and not isinstance(right, Relation):
            return _any_same(_right_side(left), (right,))
        if name_of(right) is not None and name_of(left) is None and not isinstance(left, Relation):
            return _any_same((left,), _right_side(right))
        return _same(left, right)
    except UnparsedError:  # one of them has no value
        return False


def _right_side(value: Value) -> Sequence[Value]:
    return value.sides[1] if isinstance(value, Relation) else (value,)


def _last_of_chain(value: Value) -> Value:
    """Return the value of "2 + 3 = 5", and "x = 5" of "x = 2 + 3 = 5", where the equations hold."""
    if not isinstance(value, Relation) or set(value.operators) != {"="}:
        return value
    named = name_of(value._replace(operators=("=",), sides=value.sides[:2])) is not None
    computed = value.sides[1:] if named else value.sides
    numbers = [next((one for one in side if isinstance(one, Scalar)), None) for side in computed]
    if len(computed) < 2 or any(one is None or _has_symbols(one.formula) for one in numbers):
        return value
    if not all(_any_same(side, computed[-1]) for side in computed[:-1]):
        return value
    return Relation(("=",), (value.sides[0], computed[-1])) if named else computed[-1][0]


def _has_symbols(formula: Node) -> bool:
    return bool(symbols(formula))


def _has_pi(formula: Node) -> bool:
    return formula == Node("constant", "pi") or any(map(_has_pi, formula.parts))


def _any_same(first: Sequence[Value], second: Sequence[Value]) -> bool:
    return any(_same(one, other) for one in first for other in second)


def _same(first: Value, second: Value) -> bool:
    if isinstance(first, Scalar) and isinstance(second, Scalar):
        return _same_scalar(first, second)
    if isinstance(first, Relation) and isinstance(second, Relation):
        return _same_relation(first, second)
    if isinstance(first, Group) and isinstance(second, Group):
        return _same_group(first, second)
    if isinstance(second, Group):
        first, second = second, first
    if isinstance(first, Group) and isinstance(second, Scalar):
        cells = _cells(first)
        return cells is not None and second.unit is None and same_formula(cells, second.formula)
    if isinstance(first, Group) and isinstance(second, Relation):
        interval = _interval(second)
        return interval is not None and first.kind == "tuple" and _same_group(first, interval)
    return False


def _same_scalar(first: Scalar, second: Scalar) -> bool:
    one, other = first.unit, second.unit
    if first.base != second.base and 10 not in (first.base, second.base):
        return False
    if one is None and other is None:
        return same_formula(first.formula, second.formula)
    if one is not None and other is not None:
        if {one, other} == {DEGREE, RADIAN}:
            return same_formula(
                *(_in_radians(value) if value.unit == DEGREE else value.formula for value in (first, second))
            )
        return one.powers == other.powers and same_formula(
            product(number(one.scale), first.formula), product(number(other.scale), second.formula)
        )
    measured, bare = (first, second) if other is None else (second, first)
    if measured.unit == PERCENT:
        return same_formula(measured.formula, bare.formula) or same_formula(
            measured.formula, product(number(100), bare.formula)
        )
    if measured.unit == DEGREE and _has_pi(bare.formula):
        return same_formula(_in_radians(measured), bare.formula)
    return measured.certain and same_formula(measured.formula, bare.formula)


def _in_radians(angle: Scalar) -> Node:
    return product(angle.formula, Node("constant", "pi"), number(Fraction(1, 180)))


def _same_group(first: Group, second: Group) -> bool:
    kinds = {first.kind, second.kind}
    if kinds == {"set"}:
        return _contains(first.items, second.items) and _contains(second.items, first.items)
    if len(first.items) != len(second.items):
        return False
    if kinds == {"ratio"}:
        return _same_ratio(first, second)
    if kinds == {"tuple"}:
        return first.brackets == second.brackets and _in_order(first, second)
    if kinds == {"tuple", "list"}:
        brackets = first.brackets or second.brackets
        return brackets in ("()", "[]") and _in_order(first, second)
    return kinds in ({"list"}, {"union"}, {"list", "set"}) and _in_any_order(first.items, second.items)


def _same_ratio(first: Group, second: Group) -> bool:
    left, right = _cells(first), _cells(second)
    if left is None or right is None or any(rational(part) == 0 for part in (*left.parts, *right.parts)):
        return False
    pairs = zip(left.parts, right.parts, strict=True)
    return all(same_formula(product(one, right.parts[0]), product(other, left.parts[0])) for one, other in pairs)


def _in_order(first: Group, second: Group) -> bool:
    return all(map(_any_same, first.items, second.items))


def _contains(items: Sequence[Sequence[Value]], others: Sequence[Sequence[Value]]) -> bool:
    return all(any(_any_same(item, other) for item in items) for other in others)


def _in_any_order(first: Sequence[Sequence[Value]], second: Sequence[Sequence[Value]]) -> bool:
    remaining = list(second)
    for item in first:
        place = next((place for place, other in enumerate(remaining) if _any_same(item, other)), None)
        if place is None:
            return False
        del remaining[place]
    return True


def _cells(group: Group) -> Node | None:
    """Return a vector in round brackets, a ratio, or a list of rows in square ones, as a matrix."""
    if group.kind not in ("tuple", "ratio"):
        return None
    if group.brackets == "()" or group.kind == "ratio":
        cells = [one.formula for item in group.items for one in item[:1] if isinstance(one, Scalar) and not one.unit]
        return Node("matrix", (len(cells), 1), tuple(cells)) if len(cells) == len(group.items) else None
    rows = [one for item in group.items for one in item[:1] if isinstance(one, Group) and one.brackets == "[]"]
    lines = [[_cells(row._replace(brackets="()"))] for row in rows]
    if len(rows) != len(group.items) or any(line[0] is None for line in lines) or group.brackets != "[]":
        return None
    if len({len(row.items) for row in rows}) != 1:
        return None
    cells = [cell for (line,) in lines if line is not None for cell in line.parts]
    return Node("matrix", (len(rows), len(rows[0].items)), tuple(cells))


def _same_relation(first: Relation, second: Relation) -> bool:
    names = name_of(first), name_of(second)
    if names[0] is not None and names[0] == names[1] and first.operators == second.operators:
        return _any_same(first.sides[1], second.sides[1])
    if first.operators == second.operators and all(map(_any_same, first.sides, second.sides)):
        return True
    intervals = _interval(first), _interval(second)
    if intervals[0] is not None and intervals[1] is not None:
        return _variable(first) == _variable(second) and _same_group(intervals[0], intervals[1])
    if {first.operators, second.operators} & {("in",)}:
        return _same_domain(first, second)
    if {first.operators, second.operators} == {("!=",)}:
        return all(map(_any_same, first.sides, second.sides[::-1]))
    if {first.operators, second.operators} == {("=",)}:
        left, right = _difference(first), _difference(second)
        return left is not None and right is not None and proportional(left, right)
    return False


def _same_domain(first: Relation, second: Relation) -> bool:
    """Compare an x in (1, 2] with 1 < x <= 2."""
    member, bounded = (first, second) if first.operators == ("in",) else (second, first)
    interval, variable = _interval(bounded), _variable(bounded)
    named = variable is not None and name_of(member) == variable
    return named and interval is not None and _any_same(member.sides[1], (interval,))


def _difference(relation: Relation) -> Node | None:
    sides = [one.formula for side in relation.sides for one in side[:1] if isinstance(one, Scalar) and not one.unit]
    return Node("add", None, (sides[0], negated(sides[1]))) if len(sides) == 2 else None


def _variable(relation: Relation) -> Node | None:
    """Return the one symbol that an inequality bounds."""
    names = [one.formula for side in relation.sides for one in side[:1] if isinstance(one, Scalar) and one.unit is None]
    symbols = [formula for formula in names if formula.kind == "symbol"]
    others = [formula for formula in names if formula.kind != "symbol"]
    if len(names) != len(relation.sides) or len(symbols) != 1 or any(map(_has_symbols, others)):
        return None
    return symbols[0]


def _interval(relation: Relation) -> Group | None:
    """Return where an inequality in one symbol holds: -1 < x <= 2 is (-1, 2]."""
    variable = _variable(relation)
    if variable is None or not set(relation.operators) <= {"<", "<="}:
        return None
    sides = list(relation.sides)
    place = next(place for place, side in enumerate(sides) if side[0] == Scalar(variable))
    if (len(sides), place) not in ((2, 0), (2, 1), (3, 1)):
        return None
    low: tuple[Value, ...] = (Scalar(negated(_INFINITY)),) if place == 0 else sides[0]
    high: tuple[Value, ...] = (Scalar(_INFINITY),) if place == len(sides) - 1 else sides[-1]
    left = "[" if place > 0 and relation.operators[0] == "<=" else "("
    right = "]" if place < len(sides) - 1 and relation.operators[-1] == "<=" else ")"
    return Group("tuple", left + right, (low, high))
