"""Dividing completions, and putting the switch into prompts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_reasoning.data.schema import Message, Mode, with_thinking
from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference.thinking import split_thinking, with_switch

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


USER = Message("user", "Hi")


@pytest.mark.parametrize(
    ("messages", "system"),
    [
        ((USER,), "detailed thinking on"),
        ((Message("system", "Be brief."), USER), "detailed thinking on\n\nBe brief."),
        (
            (Message("system", "detailed thinking on\n\nBe brief."), USER),
            "detailed thinking on\n\nBe brief.",
        ),
    ],
)
def test_switch_leads_the_system_turn(messages: tuple[Message, ...], system: str) -> None:
    assert with_switch(messages, "on") == (Message("system", system), USER)


def test_conflicting_switch_is_refused() -> None:
    with pytest.raises(EngineError, match="mode=on"):
        with_switch((Message("system", "detailed thinking off"), USER), "on")
