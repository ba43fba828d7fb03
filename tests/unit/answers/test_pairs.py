"""Pairs of answers chosen to deceive: no two different ones are taken for the same, and few same ones for different."""

import json
from pathlib import Path

import pytest

from nemo_reasoning.answers import answers_equal

# What is equal and not seen, each with its reason; at most five.
UNSEEN = {
    (r"\int_0^1 2x\,dx", "1"): "integrals are not computed",
    (r"\ln 2/3", r"\frac{\ln 2}{3}"): "the first can be read in two ways",
    ("5:1", "5/1"): "a ratio is no number",
}

EQUAL = [
    # matrices and vectors
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix}1&2\\3&\frac{8}{2}\end{bmatrix}"),
    (r"\left[\begin{array}{cc} \frac12 & 0 \\ 0 & 1 \end{array}\right]", "[[0.5, 0], [0, 1]]"),
    (r"\begin{pmatrix}1\\-2\end{pmatrix}", "(1, -2)"),
    (r"\begin{pmatrix} \sqrt{8} \end{pmatrix}", r"\begin{bmatrix} 2\sqrt2 \end{bmatrix}"),
    # complex numbers
    ("3 + 4i", "4i+3"),
    (r"(1+i)^2", "2i"),
    (r"e^{i\pi}", "-1"),
    (r"\frac{1}{1+i}", r"\frac{1-i}{2}"),
    (r"\pm 2i", "2i, -2i"),
    # units behind numbers and formulas
    (r"\sqrt{2}\text{ cm}", r"\sqrt2"),
    (r"2\pi\ \mathrm{m/s}", r"2 \pi m s^{-1}".replace("m s", r"\text{ m s}")),
    (r"\frac{3}{4}\,\text{kg}", "750 g"),
    ("60 min", "1 hour"),
    ("5 km/h", "5 kilometers per hour"),
    (r"12\text{ cm}^2", "0.0012 square meters"),
    ("$5", r"\$5.00"),
    ("50 cents", "$0.50"),
    ("5 million", "5,000,000"),
    ("25%", "0.25"),
    (r"30^\circ", "30 degrees"),
    ("-$3", "$-3"),
    # functions of constants
    (r"\ln e^3", "3"),
    (r"\log_2 8", "3"),
    (r"\sin\frac{\pi}{6}", "0.5"),
    (r"\sin 30^\circ", r"\frac12"),
    (r"\arctan 1", r"\frac{\pi}{4}"),
    (r"101_2", r"5_{10}"),
    (r"\ln 8", r"3\ln 2"),
    (r"\cos^2 x + \sin^2 x", "1"),
    (r"\sqrt{3+2\sqrt2}", r"1+\sqrt{2}"),
    (r"\frac{1}{\sqrt{2}-1}", r"\sqrt2 + 1"),
    (r"\sqrt[3]{-8}", "-2"),
    (r"\binom{5}{2}", "10"),
    ("5!", "120"),
    (r"2^{10}", "1024"),
    (r"\frac{1}{20!}", r"\frac{1}{2432902008176640000}"),
    # fractions and numerals
    ("½", "0.5"),
    ("2½", r"2\frac{1}{2}"),
    ("1 3/4", "1.75"),
    (r"0.\overline{3}", "1/3"),
    ("1.234.567,89", "1234567.89"),
    ("1 234 567", "1,234,567"),
    ("12,34,567", "1234567"),
    ("1’234’567", "1234567"),
    (r"1{,}000{,}000", "10^6"),
    ("3,14", "3.14"),
    ("1.5e-3", r"1.5 \times 10^{-3}"),
    ("１２．５", "12.5"),
    ("－３／４", "-0.75"),
    ("٣٫٥", "3.5"),
    ("४२", "42"),
    ("x²+1", "1 + x^2"),
    # sets, tuples, intervals, equations
    (r"\{1, 2, 3\}", r"\{3,2,1\}"),
    ("x = 2 or x = -2", r"x = \pm 2"),
    ("x = 1, x = 3", "3 and 1"),
    ("]0, 1[", "(0,1)"),
    ("x > 3", r"(3, \infty)"),
    (r"-1 < x \le 2", "(-1, 2]"),
    (r"(-\infty, 0) \cup (1, \infty)", r"(1,\infty)\cup(-\infty,0)"),
    ("y = 2x + 1", "y - 2x = 1"),
    ("2 + 3 = 5", "5"),
    (r"f(x) = \frac{x^2-1}{x-1}", "x + 1"),
    (r"\frac{a}{b} + \frac{c}{d}", r"\frac{ad+bc}{bd}"),
    ("New  York", "new york."),
    *UNSEEN,
]

DIFFERENT = [
    # only a part can be read
    (r"1 - \frac{1}{\mathrm{e}}", r"1 + \frac{1}{\mathrm{e}}"),
    (r"\frac{\mathrm{d}y}{\mathrm{d}x}", r"\frac{\mathrm{d}x}{\mathrm{d}y}"),
    (r"\frac{dy}{dx}", r"\frac{y}{x}"),
    (r"\frac{\partial f}{\partial x}", r"\frac{f}{x}"),
    (r"3\%+x", r"3\%-x"),
    (r"2 \in A", r"2 \in B"),
    (r"3 \mid n", r"3 \mid m"),
    (r"3x + 5 \quad (x \ge 0)", r"3x + 5 \quad (x \le 0)"),
    (r"\sum_{n=1}^{3} n", r"\sum_{n=1}^{4} n"),
    (r"5 \pmod 7", "5"),
    ("5 or more", "5"),
    ("5 squared", "5"),
    ("5 million", "5"),
    ("3 quarters", "3"),
    ("not 5", "5"),
    # compared by size
    ("10^{-20}", "10^{-21}"),
    (r"1 + 10^{-40}", "1"),
    (r"\frac{1}{20!}", r"\frac{1}{21!}"),
    (r"1.6\times10^{-19}\sqrt2", r"1.7\times10^{-19}\sqrt2"),
    (r"\pi", "3.14159265358979"),
    (r"\sqrt{2}", "1.41421356237309504880168872420969807856967"),
    (r"e^{\pi\sqrt{163}}", "262537412640768744"),
    ("0.333333333333", "1/3"),
    ("10^{1000}", "10^{1000}+1"),
    ("9^{9^9}", "9^{9^8}"),
    # spelled nearly alike
    ("now here", "nowhere"),
    ("no", "on"),
    ("cat", "act"),
    ("1 2", "12"),
    ("11/2", "1½"),
    ("x²", "x2"),
    ("3–5", "-2"),
    (r"2^{10}", "210"),
    ("1/2x", r"\frac{1}{2x}"),
    (r"\sqrt{2}3", r"\sqrt{23}"),
    ("1,234", "1.234"),
    ("(1,234)", "1234"),
    ("1.234", "1234"),
    ("(0,5)", "0.5"),
    ("101_2", "101"),
    # units and currencies
    ("5 mW", "5 MW"),
    ("$5", "€5"),
    ("$5", "5 cents"),
    ("5 m", "5 min"),
    ("5 cm", "5 cm^2"),
    ("3m", "3"),
    (r"\frac13 \pi r^2 h", r"\frac13 \pi r^2"),
    (r"\sqrt2\text{ cm}", r"\sqrt2\text{ m}"),
    ("20 °C", "20 °F"),
    # structure
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{vmatrix}1&2\\3&4\end{vmatrix}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
    (r"\pm 2", "2"),
    ("(1, 2)", "(2, 1)"),
    ("[1, 2)", "(1, 2]"),
    (r"\{1, 2\}", "(1, 2)"),
    ("x=3, y=4", "4, 3"),
    ("x = 5", "y = 5"),
    ("x > 5", r"x \ge 5"),
    (r"(0,1)\cup(2,3)", "(0,1), (2,3)"),
    ("x^2 = 4", "x = 2"),
    # mathematics
    (r"\sqrt{x^2}", "x"),
    (r"\ln x", r"\log_{10} x"),
    ("3+4i", "3-4i"),
    (r"\sin^{-1} x", r"\frac{1}{\sin x}"),
    (r"-2^2", "4"),
    ("1/0", "2/0"),
    (r"\frac{x}{0}", r"\frac{y}{0}"),
    (r"\infty", r"-\infty"),
    ("2A", "2a"),
    ("x_1 + x_2", "x_1 + x_3"),
    ("f(2)", "2f"),
]


_FILE = Path(__file__).parents[2] / "data" / "answers_pairs.jsonl"  # more of both kinds
_MORE = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]
EQUAL += [(pair["first"], pair["second"]) for pair in _MORE if pair["equal"]]
DIFFERENT += [(pair["first"], pair["second"]) for pair in _MORE if not pair["equal"]]


@pytest.mark.parametrize(("first", "second"), EQUAL)
def test_the_same_answer_is_recognized(first: str, second: str) -> None:
    seen = (first, second) not in UNSEEN
    assert answers_equal(first, second) == seen
    assert answers_equal(second, first) == seen


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_different_answers_are_never_taken_for_the_same(first: str, second: str) -> None:
    assert not answers_equal(first, second)
    assert not answers_equal(second, first)
    assert answers_equal(first, first)


def test_there_are_enough_pairs_and_few_are_unseen() -> None:
    assert len(EQUAL) >= 110
    assert len(DIFFERENT) >= 150
    assert len(UNSEEN) <= 5


HOSTILE = (
    "10^10^10",
    "e^{e^{e^{e^{e}}}}",
    "10^{10^{10^{7x}}}",
    r"\Gamma(10^6)",
    "((10!)!)!",
    r"\sinh(10^9)",
    "(1+x)^{1000000}",
    r"\binom{10^9}{5*10^8}",
    "(" * 10_000 + "1" + ")" * 10_000,
    ", ".join(rf"\sqrt{{{k}+\sqrt{{{k + 1}}}}}" for k in range(18)),
)


@pytest.mark.timeout(20)  # two of them took minutes
@pytest.mark.parametrize("answer", HOSTILE)
def test_what_cannot_be_computed_is_bounded_and_unequal(answer: str) -> None:
    for other in ("2", "x", answer + "+1"):
        assert not answers_equal(answer, other)
