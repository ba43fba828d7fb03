"""Completions, divided as a stream of them would be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.tags import split_thinking, with_thinking

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
