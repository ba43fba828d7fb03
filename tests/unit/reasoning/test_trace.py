"""Traces: every marker in use becomes the one format; what only speaks about tags is text."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_reasoning.reasoning.tags import with_thinking
from nemo_reasoning.reasoning.trace import MARKERS, Marker, TraceError, bare_trace, is_blank, split_trace

TEXT = st.text(st.characters(exclude_characters="<[\u25c1>]|/`", exclude_categories=["Cs"]), max_size=30)
SPACE = st.text(" \n\t", max_size=3)
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad" + string.whitespace
TAGS = ("think", "thinking", "reasoning", "thought")


def test_the_one_format() -> None:
    assert with_thinking(" 2 + 2 = 4\n", "\nIt is 4. ") == "<think>\n2 + 2 = 4\n</think>\n\nIt is 4."


@pytest.mark.smoke
@given(trace=TEXT, answer=TEXT)
def test_splitting_undoes_writing(trace: str, answer: str) -> None:
    assert split_trace(with_thinking(trace, answer)) == (trace.strip(), answer.strip())


@given(marker=st.sampled_from(MARKERS), trace=TEXT, answer=TEXT, spaces=st.tuples(SPACE, SPACE, SPACE, SPACE))
def test_every_marker_is_split_off_whatever_the_white_space(
    marker: Marker, trace: str, answer: str, spaces: tuple[str, str, str, str]
) -> None:
    opening, closing = marker.example.split("…")
    text = f"{spaces[0]}{opening}{spaces[1]}{trace}{spaces[2]}{closing}{spaces[3]}{answer}"
    assert split_trace(text) == (trace.strip(), answer.strip())


@given(name=st.sampled_from(TAGS), upper=st.booleans(), blanks=st.tuples(SPACE, SPACE, SPACE), trace=TEXT, answer=TEXT)
def test_case_and_blanks_within_a_tag_do_not_matter(
    name: str, upper: bool, blanks: tuple[str, str, str], trace: str, answer: str
) -> None:
    said = name.upper() if upper else name.title()
    text = f"<{blanks[0]}{said}{blanks[1]}>{trace}<{blanks[0]}/{blanks[2]}{said}>{answer}"
    assert split_trace(text) == (trace.strip(), answer.strip())


@pytest.mark.parametrize(
    ("text", "trace", "answer"),
    [
        ("<|begin_of_thought|>T<|end_of_thought|>\n<|begin_of_solution|> A <|end_of_solution|>", "T", "A"),
        ("<reasoning>T</reasoning> <answer>A</answer>", "T", "A"),
        ("<think>T</think><answer>A", "T", "<answer>A"),
        ("<think>T</think><answer>A</answer> and more", "T", "<answer>A</answer> and more"),
        ("T\n</think>\n\nA", "T", "A"),
        ("T</THINK>\nA", "T", "A"),
        ("T\n<|end_of_thought|>\nA", "T", "A"),
        ("\n</think>\n\nA", None, None),
        ("Write `<think>` first.", None, "Write `<think>` first."),
        ("```\n<think>\n```", None, "```\n<think>\n```"),
        ("Use `</think>`\nat the end.", None, "Use `</think>`\nat the end."),
        ("<think>T</think>It ends with </think>.", "T", "It ends with </think>."),
        ("<think>a `</think>` b</think>A", "a `</think>` b", "A"),
        ("<think>```\n</think>\n``` b</think>A", "```\n</think>\n``` b", "A"),
        ("<think>```py\nx\n</think>\n\nA ```x```", "```py\nx", "A ```x```"),
        ("<think>it`s\nso</think>A", "it`s\nso", "A"),
        ("<think>T</think>Write `<think>`.", "T", "Write `<think>`."),
        ("a < b and [b] > c", None, "a < b and [b] > c"),
        ("<thinker>T</thinker>", None, "<thinker>T</thinker>"),
        ("<think>\n\n</think>\n\n4", "", "4"),
        ('<think budget="low">T</think>A', "T", "A"),
        ("<think>\n<think>\nT</think>A", "T", "A"),
        ("\ufeff\u200b <think>T</think>A", "T", "A"),
        ("<|begin_of_solution|>A<|end_of_solution|>", None, "A"),
        ("[analysis](http://a.b) shows it", None, "[analysis](http://a.b) shows it"),
        ("## Thinking\n\nmatters.", None, "## Thinking\n\nmatters."),
    ],
)
def test_what_is_a_trace_and_what_is_text(text: str, trace: str | None, answer: str | None) -> None:
    if answer is None:
        assert split_trace(text) == ("", "A")
    else:
        assert split_trace(text) == (trace, answer)


@pytest.mark.parametrize(
    ("text", "unclosed"),
    [
        ("<think>a", True),
        ("<thinking>a</think>b", True),
        ("a</think>b", True),
        ("say <think> now", True),
        ("a<think>b</think>c", False),
        ("</think>a<think>b", False),
        ("<think>a</think>b<think>c</think>d", False),
        ("<think>a</think>b <reasoning>c</reasoning>", False),
        ("<think>a <think>b</think> c</think>d", False),
        ("<|begin_of_thought|>a<|end_of_thought|><|begin_of_solution|>cut", True),
        ("<think/>a", False),
        ("<|channel|>analysis<|message|>a<|end|>b", False),
        ("## Thinking\n\na\n\n## Final Response\n\nb", False),
    ],
)
def test_what_does_not_fit_together_is_named(text: str, unclosed: bool) -> None:
    with pytest.raises(TraceError) as caught:
        split_trace(text)
    assert caught.value.unclosed == unclosed


def test_a_closing_tag_alone_ends_the_trace_of_a_turn_that_is_known_to_think() -> None:
    assert split_trace("a </think> b", thinks=True) == ("a", "b")


BRACKETS = [
    ("<", ">", "</"),
    ("[", "]", "[/"),
    ("<|", "|>", "<|/"),
    ("<|", "|>", "<|end_of_"),
    ("&lt;", "&gt;", "&lt;/"),
]


@given(
    word=st.sampled_from(["scratchpad", "reflection", "rationale", "inner_thoughts", "deep-think", "cot"]),
    brackets=st.sampled_from(BRACKETS),
    upper=st.booleans(),
    trace=TEXT,
)
def test_an_answer_that_begins_with_a_trace_in_unknown_markers_is_refused_by_name(
    word: str, brackets: tuple[str, str, str], upper: bool, trace: str
) -> None:
    name, (begin, end, close) = word.upper() if upper else word, brackets
    with pytest.raises(TraceError, match=f"{re.escape(begin + name + end)} is no known marker"):
        split_trace(f"{begin}{name}{end}{trace}{close}{name}{end} It is 8.")


@given(marker=st.sampled_from(MARKERS), trace=TEXT.filter(lambda text: not is_blank(text)), rest=TEXT)
def test_a_trace_that_stands_apart_loses_its_markers(marker: Marker, trace: str, rest: str) -> None:
    opening, closing = marker.example.split("…")
    visible = trace.lstrip(INVISIBLE).strip()
    for text in (trace, f"{opening}{trace}", f"{trace}{closing}", f" {opening}\n{trace}{closing}\n"):
        assert bare_trace(text)[0].lstrip(INVISIBLE).strip() == visible
    assert bare_trace(f"{opening}{trace}{closing}{rest}")[1] == rest.strip()


WORDS = ["<think>", "</think>", "<answer>", "</answer>", "`", "```", "\n", " ", "a", "[THINK]", "[/THINK]"]
PIECES = st.sampled_from(WORDS)


@given(text=st.lists(PIECES).map("".join), thinks=st.booleans())
def test_what_is_split_and_written_is_split_alike(text: str, thinks: bool) -> None:
    try:
        trace, answer = split_trace(text, thinks=thinks)
        written = answer if trace is None else with_thinking(trace, answer)
        again = split_trace(written)
    except TraceError:
        return
    if trace is None or ("think" not in trace.lower() and "think" not in answer.lower()):
        assert again == (trace, answer)


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "\ufeff \u200d\n", "\u2060"])
def test_zero_width_characters_are_nothing_to_see(text: str) -> None:
    assert is_blank(text)
    assert not is_blank(text + "a")
