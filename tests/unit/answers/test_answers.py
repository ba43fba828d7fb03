"""Finding and comparing final answers."""

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_reasoning.answers import answers_equal, extract_choice, extract_final_answer

_FORMS = [
    "The final answer is {0}",
    "The final answer is [{0}].",
    "The answer is ({0}) {1}.",
    "**Answer:** {0}. {1}",
    "Answer: \\boxed{{\\text{{{0}}}}}",
    "Option {0} is correct.",
    "I choose ({0}).",
    "The answer is {1}.",
    "#### {0}",
]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 42.", "42"),
        ("The answer is 3.14.", "3.14"),
        ("The answer is 3.14", "3.14"),
        ("the FINAL answer is: 1,234.", "1,234"),
        ("The answer to 6 times 7 is 42.", "42"),
        ("Answer: C", "C"),
        ("**Answer:** 12", "12"),
        ("The answer is **12**.", "12"),
        ("The answer is $\\frac{1}{2}$.", "\\frac{1}{2}"),
        ("The answer is 4.\nThe answer is 5.", "5"),
        ("The answer is 4. No wait, the answer is 5! Done.", "5"),
        ("The answer is 4.\nBye, friend.", "4"),
        ("So \\boxed{7}.", "7"),
        ("So \\boxed{\\frac{a}{b_{2}}} holds", "\\frac{a}{b_{2}}"),
        ("\\boxed{1} and \\boxed{2}", "2"),
        ("The answer is \\boxed{9}.", "9"),
        ("\\boxed{3}. Hence the answer is 4.", "4"),
        ("The answer is 3. Hence \\boxed{4}", "4"),
        ("The answer is 3. Hence \\boxed{4", "3"),
        ("The answer is Paris", "Paris"),
    ],
)
def test_last_stated_answer_wins(text: str, answer: str) -> None:
    assert extract_final_answer(text) == answer
    assert extract_final_answer(text, last_number=True) == answer


@pytest.mark.parametrize("text", ["", "I get 42", "The answer is", "\\boxed{}", "The answer is not 4", "\\boxed{1"])
def test_nothing_stated(text: str) -> None:
    assert extract_final_answer(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("30 * 6 = 180, and 180 + 54 = 234.", "234"),
        ("It weighs 1,234.5 grams", "1,234.5"),
        ("that is -7", "-7"),
        ("about 3/4 of it", "3/4"),
        ("half, .5, is left", ".5"),
        ("see H2O and x2", None),
        ("no digits", None),
    ],
)
def test_last_number_only_if_asked_for(text: str, number: str | None) -> None:
    assert extract_final_answer(text) is None
    assert extract_final_answer(text, last_number=True) == number


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1,234", "1234"),
        ("42", "42.0"),
        ("0.5", "1/2"),
        (".5", "0.50"),
        ("-3", "−3"),
        ("+3", "3"),
        ("2/4", "1/2"),
        ("1,000/10", "100"),
        ("$\\frac{1}{2}$", "0.5"),
        ("-\\dfrac{1}{2}", "-0.5"),
        ("1{,}000", "1000"),
        ("Paris", " paris. "),
        ("New  York", "new york"),
        ("\\text{Yes}", "yes"),
        ("9007199254740993", "9007199254740993.0"),
        ("1" * 5000, "1" * 5000),
        ("42 apples", "42"),
        ("1e3", "1000"),
    ],
)
def test_equal(first: str, second: str) -> None:
    assert answers_equal(first, second)
    assert answers_equal(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("42", "43"),
        ("0.333", "1/3"),
        ("9007199254740993", "9007199254740992"),
        ("12,34", "1234"),
        ("1/0", "2/0"),
        ("-3", "3"),
        ("Paris", "London"),
        ("42 apples", "42 pears"),
        ("1e999999999", "1e999999998"),
        ("", "0"),
    ],
)
def test_different(first: str, second: str) -> None:
    assert not answers_equal(first, second)
    assert not answers_equal(second, first)


@given(value=st.fractions(max_denominator=10**6))
def test_every_rational_is_found_and_equals_itself(value: Fraction) -> None:
    found = extract_final_answer(f"Thus 7 of 9. The answer is {value}.")
    assert found is not None
    assert answers_equal(found, f"{2 * value.numerator}/{2 * value.denominator}")
    assert not answers_equal(found, str(value + 1))


@given(value=st.integers())
def test_thousands_separators_do_not_count(value: int) -> None:
    assert answers_equal(f"{value:,}", str(value))


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is Berlin because A is wrong.", "D"),
        ("Answer: Berlin, since A is the right answer only for France", "D"),
        ("Answer: B because C is correct for others", "B"),
        ("The answer is not A but B.", "B"),
        ("The answer is not Paris, but rather Rome.", "C"),
        ("The answer is not A, but it may be B.", None),
        ("Option B: London is correct.", "B"),
        ("Rome is correct only in Italy.", None),
        ("A and B is correct.", None),
        ("If B is correct. Then no.", None),
    ],
)
def test_reasons_corrections_and_conditions_name_no_other_choice(text: str, letter: str | None) -> None:
    assert extract_choice(text, choices=["Paris", "London", "Rome", "Berlin"]) == letter


_numbers = st.integers(min_value=-999, max_value=999)


@given(members=st.lists(_numbers, min_size=2, max_size=5), seed=st.randoms())
def test_order_counts_in_tuples_only(members: list[int], seed: Random) -> None:
    shuffled = members.copy()
    seed.shuffle(shuffled)
    listed, other = (", ".join(map(str, values)) for values in (members, shuffled))
    assert answers_equal(f"\\{{{listed}\\}}", f"\\{{{other}\\}}")
    assert answers_equal(f"({listed})", f"({other})") == (members == shuffled)


@given(value=st.fractions(max_denominator=999), unit=st.sampled_from(["cm", "apples", "\\text{ dollars}", "%"]))
def test_a_unit_counts_only_where_both_have_one(value: Fraction, unit: str) -> None:
    assert answers_equal(f"{value} {unit}", str(value))
    assert answers_equal(str(value), f"{value} {unit}")
    assert not answers_equal(f"{value} {unit}", f"{value} seconds")


@settings(max_examples=30, deadline=None)
@given(first=_numbers, second=_numbers, factor=st.integers(min_value=2, max_value=9))
def test_formulas_compare_as_mathematics(first: int, second: int, factor: int) -> None:
    expanded = f"{factor * first} + {factor * second} x"
    assert answers_equal(f"{factor}({first} + {second}x)", expanded)
    assert answers_equal(expanded, f"{factor}({first} + {second}x)")
    assert not answers_equal(f"{factor}({first} + {second + 1}x)", expanded)


@settings(deadline=None)
@given(answer=st.text(alphabet="\\{}()[],^_+-=/.pix239 ", max_size=12))
def test_any_answer_equals_itself_and_comparing_is_symmetric(answer: str) -> None:
    assert answers_equal(answer, answer)
    assert answers_equal(answer, "x+1") == answers_equal("x+1", answer)


@given(letter=st.sampled_from("ABCD"), form=st.sampled_from(_FORMS), before=st.sampled_from("ABCD"))
def test_every_way_to_name_a_choice_is_understood(letter: str, form: str, before: str) -> None:
    choices = ["iron", "gold", "lead", "zinc"]
    text = f"The answer is {before}. No, wait.\n{form.format(letter, choices['ABCD'.index(letter)])}"
    assert extract_choice(text, choices=choices) == letter


def test_formulas_are_compared_outside_of_the_main_thread_too() -> None:
    with ThreadPoolExecutor() as threads:
        assert threads.submit(answers_equal, "2\\sqrt{3}", "\\sqrt{12}").result()


@given(text=st.text(alphabet="answer is:=*\\boxed{}0123456789.,/ \n$"))
def test_any_text_is_survived(text: str) -> None:
    found = extract_final_answer(text, last_number=True)
    assert found is None or (found and answers_equal(found, found))
