"""Formulas as trees."""

from fractions import Fraction
from typing import Any, NamedTuple


class Node(NamedTuple):
    """A formula.

    Attributes:
        kind: "number", "symbol", "constant", "add", "mul", "pow", "call" or "matrix".
        value: A fraction or a name; of a matrix its numbers of rows and columns.
        parts: Operands; of a matrix its cells row by row.
    """

    kind: str
    value: Any = None
    parts: tuple["Node", ...] = ()


def number(value: Fraction | int) -> Node:
    """Return a number as a formula."""
    return Node("number", Fraction(value))


def product(*parts: Node) -> Node:
    """Return a product."""
    return parts[0] if len(parts) == 1 else Node("mul", None, parts)


def negated(node: Node) -> Node:
    """Return a formula times minus one."""
    return number(-node.value) if node.kind == "number" else product(number(-1), node)


def power(base: Node, exponent: Node) -> Node:
    """Return a power."""
    return Node("pow", None, (base, exponent))


def symbols(node: Node) -> frozenset[str]:
    """Return the names that stand in a formula."""
    if node.kind == "symbol":
        return frozenset((node.value,))
    return frozenset[str]().union(*map(symbols, node.parts))
