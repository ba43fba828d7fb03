"""The format of thinking: written, split again, and refused where it is malformed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.tags import THINK_CLOSE, THINK_OPEN, split_thinking, split_trace, with_thinking

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


plain = st.text().filter(lambda text: "<think>" not in text and "</think>" not in text)


@given(trace=plain, answer=plain.filter(str.strip))
def test_what_training_writes_is_well_formed(trace: str, answer: str) -> None:
    text = with_thinking(trace, answer)
    assert split_thinking(text, "on") == (trace.strip(), answer.strip(), True)
    assert not split_thinking(text, "off").well_formed
    assert not split_thinking(text, "on", finished=False).well_formed
    assert split_thinking(answer, "off") == ("", answer.strip(), True)
    assert not split_thinking(answer, "on").well_formed
    assert not split_thinking(answer, "off", finished=False).well_formed


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("", "", ""),
        ("<think>\na", "a", ""),
        ("<think>a</think>", "a", ""),
        ("<think>a</think> \n", "a", ""),
        ("a</think>b", "", "a\nb"),
        ("hello <think>a</think>b", "a", "hello\nb"),
        ("<think>a</think>b<think>c</think>d", "a\nc", "b\nd"),
        ("<think>a</think>b<think>c", "a\nc", "b"),
        ("<think><think>a</think>b", "a", "b"),
        ("<think>a</think></think>b", "a", "b"),
        ("<think>a</think>b</think>", "a", "b"),
        ("</think>a<think>", "", "a"),
    ],
)
@pytest.mark.parametrize("mode", ["on", "off"])
def test_malformed(text: str, reasoning: str, answer: str, mode: Mode) -> None:
    assert split_thinking(text, mode) == (reasoning, answer, False)


@given(
    pieces=st.lists(st.sampled_from(["<think>", "</think>", "a", "\n", "<thi", "nk>"])),
    mode=st.sampled_from(["on", "off"]),
)
def test_no_tag_survives_and_well_formed_means_an_answer(pieces: list[str], mode: Mode) -> None:
    split = split_thinking("".join(pieces), mode)
    assert "<think>" not in split.answer
    assert "</think>" not in split.answer
    assert split.answer or not split.well_formed
