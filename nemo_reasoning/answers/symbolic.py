"""Proofs that two formulas are the same; what is not proven is not equal."""

import math
from collections.abc import Iterator
from fractions import Fraction
from math import comb, factorial, gcd, lcm
from typing import Any

from nemo_reasoning.answers.deadline import OutOfTime, time_limit
from nemo_reasoning.answers.formula import Node, negated, symbols
from nemo_reasoning.answers.tokens import UnparsedError

_MOST_BITS = 20_000  # of a number that is computed
_MOST_COMPUTED = 1_000_000  # binary digits in front of or behind the point of what sympy may compute
_MOST_TERMS = 3_000  # of a sum that is expanded
_LARGEST_FACTORIAL = 500
_COMPLEX = ("z", "w", "omega")  # symbols that stand for complex numbers


def same_formula(first: Node, second: Node) -> bool:
    """Tell whether two formulas are proven to have the same value for all values of their symbols.

    Numbers compare exactly. Symbols are real, so that the root of x² is |x|, but for z, w and ω, which are complex.
    Common factors cancel: (x² - 1)/(x - 1) is x + 1, as sympy and math-verify have it. But what holds a symbol in
    a denominator is no formula without that symbol's like: x/x is not 1, which says nothing about x.

    Raises:
        UnparsedError: One of them is undefined, as 1/0 is.
    """
    if first.kind == "matrix" or second.kind == "matrix":
        return first[:2] == second[:2] and all(map(same_formula, first.parts, second.parts))
    left, right = rational(first), rational(second)
    if left is not None and right is not None:
        return left == right
    if first == second:
        return True
    if not symbols(first) & symbols(second) and (_divides_by_symbols(first) or _divides_by_symbols(second)):
        return False
    difference = Node("add", None, (first, negated(second)))
    return _bits(difference) <= _MOST_COMPUTED and _zero(difference)


def _divides_by_symbols(node: Node) -> bool:
    if node.kind == "pow" and symbols(node.parts[0]):
        exponent = rational(node.parts[1])
        if exponent is not None and exponent < 0:
            return True
    return any(map(_divides_by_symbols, node.parts))


def proportional(first: Node, second: Node) -> bool:
    """Tell whether one formula is proven to be the other times a number that is not zero."""
    import sympy  # before the time is limited: an interrupted import is not repeated

    if _bits(first) + _bits(second) > _MOST_COMPUTED:
        return False
    try:
        with time_limit():
            ratio = sympy.cancel(_sympy(first) / _sympy(second))
            return bool(ratio.is_number and ratio.is_finite and ratio.is_zero is False)
    except (UnparsedError, OutOfTime, ArithmeticError, RecursionError):
        return False


def rational(node: Node) -> Fraction | None:
    """Return the value of a formula of rational numbers, or None for any other, or a very large one.

    Raises:
        UnparsedError: It has no value.
    """
    if node.kind == "number":
        found: Fraction = node.value
        return found
    if node.kind not in ("add", "mul", "pow", "call"):
        return None
    parts = [rational(part) for part in node.parts]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if node.kind == "add":
        return sum(known, Fraction(0))
    if node.kind == "mul":
        result = Fraction(1)
        for part in known:
            result *= part
        return result
    return _power(*known) if node.kind == "pow" else _called(node.value, known)


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if base == 0 and exponent <= 0:
        raise UnparsedError("zero to the power of zero, or below")
    if exponent.denominator != 1:
        return None
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if size > 1 and size * abs(exponent) > _MOST_BITS:
        return None
    return Fraction(base ** int(exponent))


def _called(name: str, values: list[Fraction]) -> Fraction | None:
    whole = [int(value) for value in values if value.denominator == 1]
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    if name in ("abs", "floor", "ceiling") and len(values) == 1:
        value = values[0]
        return {"abs": abs(value), "floor": Fraction(value // 1), "ceiling": Fraction(-(-value // 1))}[name]
    if len(whole) < len(values):
        return None
    if name == "factorial" and 0 <= whole[0] <= _LARGEST_FACTORIAL:
        return Fraction(factorial(whole[0]))
    if name == "binom" and len(whole) == 2 and min(whole) >= 0 and max(whole) <= _LARGEST_FACTORIAL:
        return Fraction(comb(*whole))
    if name == "mod" and len(whole) == 2 and whole[1] > 0:
        return Fraction(whole[0] % whole[1])
    if name in ("gcd", "lcm"):
        return Fraction(gcd(*whole) if name == "gcd" else lcm(*whole))
    return None


def _bits(node: Node) -> float:
    """Return a bound on the binary digits of a formula, symbols being about one, or infinity if they are too many."""
    if node.kind == "number":
        return float(max(node.value.numerator.bit_length(), node.value.denominator.bit_length()))
    parts = [_bits(part) for part in node.parts]
    if node.kind == "pow":
        known = node.parts[1].value if node.parts[1].kind == "number" else None
        found = parts[0] * (abs(known) if known is not None else _two_to(parts[1]))
    elif node.kind == "call" and node.value in ("exp", "sinh", "cosh", "gamma", "factorial", "binom"):
        found = _two_to(sum(parts)) * sum(parts)
    else:
        found = sum(parts) + 2
    return float(found) if found <= _MOST_COMPUTED else math.inf


def _two_to(bits: float) -> float:
    return 2.0**bits if bits < 64 else math.inf


def _zero(node: Node) -> bool:
    """Tell whether a formula is proven to be zero."""
    import sympy  # before the time is limited: an interrupted import is not repeated

    try:
        with time_limit():
            found = _sympy(node)
            if found.has(sympy.nan, sympy.zoo):
                raise UnparsedError("undefined")
            return found == 0 or (_may_be_zero(found) and any(map(_is_zero, _forms(found))))
    except (OutOfTime, ArithmeticError, RecursionError, NotImplementedError):
        return False


def _may_be_zero(found: Any) -> bool:
    """Compute the formula at one place with 30 digits: a quick no."""
    import sympy

    places = {
        symbol: sympy.Rational(7 + 4 * place, 5 + 3 * place)
        for place, symbol in enumerate(sorted(found.free_symbols, key=str))
    }
    value = found.subs(places)
    if not value.is_number or value.has(sympy.oo, -sympy.oo, sympy.core.function.AppliedUndef):
        return True
    terms = value.args if value.is_Add else (value,)
    size = max((abs(term.evalf(30)) for term in terms), default=sympy.Integer(0))
    error = abs(value.evalf(30))
    return not (error.is_number and size.is_number) or not bool(error > size * sympy.Float("1e-20"))


def _forms(found: Any) -> Iterator[Any]:
    """Yield ways to write a formula in which zero may show."""
    import sympy

    yield found
    logarithms = sympy.expand_log(found, factor=True)
    yield logarithms
    yield sympy.powsimp(sympy.powdenest(logarithms))
    yield sympy.sqrtdenest(found)
    yield logarithms.rewrite(sympy.exp)
    yield sympy.radsimp(found)
    yield sympy.expand_func(found)
    yield sympy.factor(found, deep=True)
    if found.has(sympy.conjugate):
        parts = {
            one: sympy.Symbol(f"Re {one}", real=True) + sympy.I * sympy.Symbol(f"Im {one}", real=True)
            for one in found.free_symbols
            if not one.is_real
        }
        yield sympy.expand_complex(found.subs(parts))
    yield sympy.simplify(found)
    if found.is_number and found.is_algebraic:
        yield sympy.minimal_polynomial(found, sympy.Symbol("_")) - sympy.Symbol("_")


def _is_zero(found: Any) -> bool:
    import sympy

    if found == 0:
        return True
    top = sympy.fraction(sympy.together(found))[0]
    return _terms(top) <= _MOST_TERMS and sympy.expand(top) == 0


def _terms(found: Any) -> int:
    """Return a bound on the terms of a formula when it is expanded."""
    import sympy

    if found.is_Add:
        return sum(map(_terms, found.args))
    if found.is_Mul:
        result = 1
        for part in found.args:
            result = min(result * _terms(part), 10 * _MOST_TERMS)
        return result
    if found.is_Pow and found.exp.is_Integer:
        base, exponent = _terms(found.base), abs(int(found.exp))
        if base == 1:
            return 1
        return comb(base + exponent - 1, exponent) if exponent < 200 and base < 50 else 10 * _MOST_TERMS
    return max(1, max(map(_terms, found.args), default=1)) if isinstance(found, sympy.Function) else 1


def _sympy(node: Node) -> Any:
    """Return a formula of sympy.

    Raises:
        UnparsedError: It is undefined, or a function has a number of arguments it does not take.
    """
    import sympy

    value = rational(node)
    if value is not None:
        return sympy.Rational(value.numerator, value.denominator)
    if node.kind == "symbol":
        return sympy.Symbol(node.value, real=node.value.partition("_")[0] not in _COMPLEX)
    if node.kind == "constant":
        return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "inf": sympy.oo}[node.value]
    parts = [_sympy(part) for part in node.parts]
    if node.kind == "add":
        found = sympy.Add(*parts)
    elif node.kind == "mul":
        found = sympy.Mul(*parts)
    elif node.kind == "pow":
        found = _sympy_power(*parts)
    elif node.kind == "call":
        found = _sympy_call(node.value, parts)
    else:
        raise UnparsedError("a matrix in a formula")
    if found.has(sympy.nan, sympy.zoo):
        raise UnparsedError("undefined")
    return found


def _sympy_power(base: Any, exponent: Any) -> Any:
    import sympy

    if base == 0 and not exponent.is_positive:
        raise UnparsedError("a power of zero")
    if base.is_number and exponent.is_number and (exponent.is_Rational or exponent.is_Float):
        size = sum(max(number.p.bit_length(), number.q.bit_length()) for number in base.atoms(sympy.Rational)) + 2
        if size * abs(exponent) > _MOST_BITS:  # stands for itself
            return sympy.Function("power")(base, exponent)
    if exponent.is_Integer and abs(exponent) > 100 and _terms(base) > 1:
        return sympy.Function("power")(base, exponent)
    return base**exponent


def _sympy_call(name: str, parts: list[Any]) -> Any:
    import sympy

    if name == "root":
        return _root(*parts)
    if name in ("ln", "log", "lg") and len(parts) <= 2:
        bases = {"ln": sympy.E, "lg": sympy.Integer(10), "log": sympy.Symbol("base of the logarithm", positive=True)}
        base = parts[1] if len(parts) == 2 else bases[name]
        return sympy.log(parts[0]) / sympy.log(base)
    known = {name: getattr(sympy, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")}
    known |= {"arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "exp": sympy.exp, "abs": sympy.Abs}
    known |= {"floor": sympy.floor, "ceiling": sympy.ceiling, "gamma": sympy.gamma, "conjugate": sympy.conjugate}
    if name in known:
        if len(parts) != 1:
            raise UnparsedError(f"{name} of {len(parts)} arguments")
        return known[name](*parts)
    return sympy.Function(name)(*parts)


def _root(radicand: Any, index: Any) -> Any:
    """Return a root; an odd one of a negative number is negative."""
    import sympy

    if not index.is_Integer or not 2 <= index <= 100:
        return radicand ** (1 / index)
    if index % 2 and radicand.is_negative:
        return -((-radicand) ** sympy.Rational(1, index))
    return radicand ** sympy.Rational(1, index)
