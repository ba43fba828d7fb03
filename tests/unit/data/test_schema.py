"""The format of thinking: written, split again, and refused where it is malformed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_reasoning.data.schema import (
    THINK_CLOSE,
    THINK_OPEN,
    Message,
    Rejected,
    Row,
    split_trace,
    system_prompt,
    with_thinking,
)

PARTS = st.text(max_size=30) | st.sampled_from(
    ["<think", "think>", "</think", "<", "\n", "<Think>", "<THINK>a</THINK>"]
)


def _untagged(text: str) -> bool:
    return THINK_OPEN not in text and THINK_CLOSE not in text


UNTAGGED = st.lists(PARTS, max_size=4).map("".join).filter(_untagged)


def test_the_one_format() -> None:
    assert with_thinking(" 2 + 2 = 4\n", "\nIt is 4. ") == "<think>\n2 + 2 = 4\n</think>\n\nIt is 4."


@pytest.mark.smoke
@given(trace=UNTAGGED, answer=UNTAGGED)
def test_splitting_undoes_writing(trace: str, answer: str) -> None:
    assert split_trace(with_thinking(trace, answer)) == (trace.strip(), answer.strip())


@given(trace=UNTAGGED, answer=UNTAGGED, spaces=st.lists(st.text(" \n\t", max_size=3), min_size=4, max_size=4))
def test_white_space_around_the_tags_does_not_matter(trace: str, answer: str, spaces: list[str]) -> None:
    first, second, third, fourth = spaces
    text = f"{first}{THINK_OPEN}{second}{trace}{third}{THINK_CLOSE}{fourth}{answer}"
    assert split_trace(text) == (trace.strip(), answer.strip())


@given(answer=UNTAGGED)
def test_a_turn_without_tags_has_no_trace(answer: str) -> None:
    assert split_trace(answer) == (None, answer.strip())


def test_an_empty_trace_is_not_an_absent_one() -> None:
    assert split_trace("<think>\n\n</think>\n\n4") == ("", "4")


@pytest.mark.parametrize(
    ("text", "opened", "closed"),
    [
        ("<think>a", 1, 0),
        ("a</think>b", 0, 1),
        ("<think>a</think>b</think>c", 1, 2),
        ("<think>a<think>b</think>c", 2, 1),
        ("<think>a</think>b<think>c</think>d", 2, 2),
        ("a<think>b</think>c", 1, 1),
        ("</think>a<think>b", 1, 1),
        ("</think><think>", 1, 1),
    ],
)
def test_malformed_tags_are_named(text: str, opened: int, closed: int) -> None:
    with pytest.raises(ValueError, match=f"^{opened} <think> and {closed} </think> tags"):
        split_trace(text)


@pytest.mark.parametrize(
    ("mode", "instructions", "expected"),
    [
        ("on", "", "detailed thinking on"),
        ("off", "", "detailed thinking off"),
        ("off", "Be brief.", "detailed thinking off\n\nBe brief."),
    ],
)
def test_the_switch_comes_before_the_instructions(mode: str, instructions: str, expected: str) -> None:
    assert system_prompt(mode, instructions) == expected


def test_the_question_is_what_the_user_says_first() -> None:
    turns = [Message("system", "s"), *(Message(role, role + n) for n in "12" for role in ("user", "assistant"))]
    assert Row(tuple(turns), "off", "", "", "a:1").question == "user1"


@pytest.mark.parametrize(
    ("origin", "error", "expected"),
    [
        ("a/b.jsonl:12", "empty answer: 'x: y'", Rejected("a/b.jsonl", 12, "empty answer", "'x: y'")),
        ("C:\\data.jsonl:3", "not JSON: ", Rejected("C:\\data.jsonl", 3, "not JSON", "")),
        ("builtin:4", "no detail", Rejected("builtin", 4, "no detail", "")),
        ("a:1", f"long: {'z' * 999}", Rejected("a", 1, "long", "z" * 200)),
    ],
)
def test_a_rejected_row_says_where_it_stands_and_why(origin: str, error: str, expected: Rejected) -> None:
    assert Rejected.at(origin, ValueError(error)) == expected
