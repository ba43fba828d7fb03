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
    assert split_thinking(answer, "off") == ("", answer.lstrip(), True)
    assert not split_thinking(answer, "on").well_formed
    assert not split_thinking(answer, "off", finished=False).well_formed


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("", "", ""),
        ("<think>\na", "a", ""),
        ("<think>a</think>", "a", ""),
        ("<think>a</think> \n", "a", ""),
        ("<think>a</think></think>b", "a", "</think>b"),
        ("<think>a</think>\n<think>b</think>c", "a", "<think>b</think>c"),
    ],
)
@pytest.mark.parametrize("mode", ["on", "off"])
def test_malformed(text: str, reasoning: str, answer: str, mode: Mode) -> None:
    assert split_thinking(text, mode) == (reasoning, answer, False)


@pytest.mark.parametrize(
    ("text", "mode", "finished", "reasoning", "answer"),
    [
        ("Is it 3? No.</think>\n\nIt is 4, after </think>.", "on", True, "Is it 3? No.", "It is 4, after </think>."),
        ("Is it 3? Let me", "on", False, "Is it 3? Let me", ""),  # cut before the block was closed
        ("It is 4.", "on", True, "", "It is 4."),
        ("hello <think>a</think>b", "on", True, "hello <think>a", "b"),
        ("I see.\n</think>\n\n4", "off", True, "I see.", "4"),  # a server that thought all the same
        ("End it with </think> in the text.", "off", True, "", "End it with </think> in the text."),
        ("It is <think>4", "off", False, "", "It is <think>4"),
    ],
)
def test_a_block_that_was_opened_in_the_prompt_is_guessed(
    text: str, mode: Mode, finished: bool, reasoning: str, answer: str
) -> None:
    assert split_thinking(text, mode, finished=finished)[:2] == (reasoning, answer)
