"""The built-in problems: right, reproducible, and never both trained on and asked."""

import operator
import re
from collections import Counter
from typing import Any

import pytest

from nemo_reasoning.answers import extract_final_answer
from nemo_reasoning.data.builtin import FAMILIES, Problem, held_out, training_problems, training_rows
from nemo_reasoning.errors import DataError
from nemo_reasoning.reasoning.trace import split_trace

KEYS = {
    *("input", "output", "category", "license", "reasoning"),
    *("generator", "used_in_training", "version", "system_prompt"),
}
OPERATIONS = {"+": operator.add, "*": operator.mul}
ROWS = training_rows(count=3000, seed=17, off_share=0.3)
ASKED = held_out(count=300, seed=17)


def prompt(row: dict[str, Any]) -> str:
    return row["input"][0]["content"]


def expected(question: str) -> int:
    """Solve a problem from its question alone."""
    numbers = [int(number) for number in re.findall(r"\d+", question)]
    if "times" in question:
        left, right = numbers
        return left * right
    if question.startswith("Start"):
        start, added, factor, last = numbers
        return (start + added) * factor + last
    return sum(numbers)


def assert_steps_lead_to(trace: str, value: int) -> None:
    """Check each step of a trace, and that the last one gives the value."""
    for step in trace.splitlines():
        left, sign, right, result = re.fullmatch(r"(\d+) ([+*]) (\d+) = (\d+)", step).groups()
        assert OPERATIONS[sign](int(left), int(right)) == int(result), step
    assert int(result) == value


def test_rows_have_the_keys_of_the_nemotron_dataset() -> None:
    for row in ROWS:
        assert set(row) == KEYS
        [turn] = row["input"]
        assert (turn["role"], row["category"], row["license"]) == ("user", "math", "Apache-2.0")
        assert isinstance(row["used_in_training"], list)
        assert row["system_prompt"] == f"detailed thinking {row['reasoning']}"


def test_the_steps_and_the_answer_are_right() -> None:
    for row in ROWS:
        trace, final = split_trace(row["output"])
        value = expected(prompt(row))
        assert extract_final_answer(final) == str(value)
        assert final == f"The answer is {value}."
        assert (trace is None) == (row["reasoning"] == "off")
        if trace is not None:
            assert_steps_lead_to(trace, value)


def test_held_out_problems_are_right() -> None:
    for problem in ASKED:
        assert problem.answer == str(expected(problem.prompt))
        assert_steps_lead_to(problem.trace, int(problem.answer))
        assert extract_final_answer(problem.final) == problem.answer


def test_every_step_is_small() -> None:
    """Steps are what a small model gets right: a product by one digit, or one of tens; a sum of ones, or with tens."""
    for problem in ASKED:
        for left, right in re.findall(r"(\d+) \* (\d+)", problem.trace):
            assert int(right) < 10
            assert int(left) < 20 or int(left) % 10 == 0
        for left in re.findall(r"(\d+) \+ ", problem.trace):
            assert int(left) < 10 or int(left) % 10 == 0


@pytest.mark.smoke
def test_no_held_out_problem_is_trained_on() -> None:
    trained = {prompt(row) for row in ROWS}
    for count in (300, 360):
        assert not trained & {problem.prompt for problem in held_out(count=count, seed=3)}
    assert not trained & {problem.prompt for family in FAMILIES.values() for problem in family.part(held_out=True)}


def test_problems_to_learn_from_are_different_and_none_is_held_out() -> None:
    found = training_problems(seed=3)
    assert len({problem.prompt for problem in found}) == len(found) > 1_000
    assert not any(problem.held_out for problem in found)
    assert [problem.family for problem in found[:4]] == ["product", "chain", "total", "product"]
    assert [problem.prompt for problem in training_problems(seed=4)[:9]] != [problem.prompt for problem in found[:9]]


def test_about_a_fifth_of_each_family_is_held_out() -> None:
    sizes = {"product": 89 * 7, "chain": 8 * 8 * 4 * 8, "total": 49 * 7**3}
    for name, family in FAMILIES.items():
        assert len(family.part(held_out=True)) / sizes[name] == pytest.approx(0.2, abs=0.04)


def test_held_out_is_a_property_of_the_text() -> None:
    problem = ASKED[0]
    copy = Problem("product", problem.prompt, trace="", answer="", final="")
    assert problem.held_out
    assert copy.held_out


def test_families_take_turns() -> None:
    families = list(FAMILIES)
    assert [row["generator"].rpartition("/")[2] for row in ROWS] == families * 1000
    assert [problem.family for problem in ASKED] == families * 100
    assert [problem.family for problem in held_out(count=4, seed=1)] == [*families, families[0]]


def test_held_out_problems_differ_from_each_other() -> None:
    assert max(Counter(problem.prompt for problem in held_out(count=360, seed=9)).values()) == 1


def test_a_row_depends_on_its_place_and_the_seed_alone() -> None:
    assert training_rows(count=100, seed=17, off_share=0.3) == ROWS[:100]
    others = training_rows(count=100, seed=18, off_share=0.3)
    assert sum(prompt(one) == prompt(other) for one, other in zip(ROWS, others, strict=False)) < 10
    silent = training_rows(count=100, seed=17, off_share=1.0)
    assert [prompt(row) for row in silent] == [prompt(row) for row in ROWS[:100]]


def test_the_rows_of_a_seed_never_change() -> None:
    assert [(prompt(row), split_trace(row["output"])[0]) for row in training_rows(count=3, seed=0, off_share=0)] == [
        ("What is 23 times 5?", "20 * 5 = 100\n3 * 5 = 15\n100 + 10 = 110\n110 + 5 = 115"),
        ("Start with 5, add 3, multiply by 5, add 4. What do you get?", "5 + 3 = 8\n8 * 5 = 40\n40 + 4 = 44"),
        ("Add 11, 9, 9 and 4.", "1 + 9 = 10\n10 + 10 = 20\n20 + 9 = 29\n9 + 4 = 13\n20 + 13 = 33"),
    ]
    assert [problem.prompt for problem in held_out(count=3, seed=0)] == [
        "What is 65 times 4?",
        "Start with 6, add 3, multiply by 5, add 3. What do you get?",
        "Add 57, 8, 8 and 9.",
    ]


def test_the_share_without_thinking() -> None:
    assert sum(row["reasoning"] == "off" for row in ROWS) / len(ROWS) == pytest.approx(0.3, abs=0.03)
    assert {row["reasoning"] for row in training_rows(count=50, seed=1, off_share=0.0)} == {"on"}
    assert {row["reasoning"] for row in training_rows(count=50, seed=1, off_share=1.0)} == {"off"}


def test_held_out_problems_follow_the_seed() -> None:
    assert held_out(count=30, seed=4) == held_out(count=30, seed=4)
    assert held_out(count=30, seed=4) != held_out(count=30, seed=5)
    assert held_out(count=0, seed=4) == []


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(DataError, match="the family 'product' has only (\\d+); ask for at most (\\d+)") as refused:
        held_out(count=10_000, seed=0)
    most = int(refused.value.args[0].rpartition(" ")[2])
    assert len(held_out(count=most, seed=0)) == most
    with pytest.raises(DataError):
        held_out(count=most + 1, seed=0)
