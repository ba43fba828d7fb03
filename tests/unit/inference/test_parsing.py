"""The streaming parser against a whole-text one, and stop strings."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_reasoning.inference.detokenizer import StopFinder
from nemo_reasoning.reasoning.tags import ThinkParser, parse, partial_suffix

TAGS = ["<think>", "</think>", "<thi", "nk>", "<", "/", "</", "think>", "</think", "<<think>>"]
texts = st.lists(st.one_of(st.sampled_from([*TAGS, " ", "\n", "a", "b c", "é", "\u3000"]), st.text(max_size=4))).map(
    "".join
)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in zip(edges, edges[1:], strict=False)]


def stream(pieces: list[str], *, thinking: bool = False) -> tuple[str, str]:
    parser = ThinkParser(thinking=thinking)
    parts = [*(parser.push(piece) for piece in pieces), parser.finish()]
    return "".join(part.reasoning for part in parts), "".join(part.answer for part in parts)


def reference(text: str, *, thinking: bool = False) -> tuple[str, str]:
    """Divide a whole text with a split at the tags."""
    sections: dict[bool, list[str]] = {True: [], False: []}
    for part in re.split("(</?think>)", text):
        if part in ("<think>", "</think>"):
            thinking = part == "<think>"
        elif part.strip():
            sections[thinking].append(part.strip())
    return "\n".join(sections[True]), "\n".join(sections[False])


@given(text=texts, cuts=st.lists(st.integers(0, 10**6), max_size=12), thinking=st.booleans())
def test_any_chunking_of_any_text_equals_the_whole_text(text: str, cuts: list[int], thinking: bool) -> None:
    expected = reference(text, thinking=thinking)
    assert parse(text, thinking=thinking) == expected
    assert stream(pieces_of(text, cuts), thinking=thinking) == expected
    assert stream(list(text), thinking=thinking) == expected


@given(text=texts)
def test_no_whole_tag_survives(text: str) -> None:
    for part in parse(text):
        assert "<think>" not in part
        assert "</think>" not in part


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("", "", ""),
        ("Hi", "", "Hi"),
        ("<think>\na\n</think>\n\nb\n", "a", "b"),
        ("<think>\na", "a", ""),
        ("a</think>b", "", "a\nb"),
        ("hello <think>a</think>b", "a", "hello\nb"),
        ("<think>a</think>b<think>c</think>d", "a\nc", "b\nd"),
        ("<think><think>a</think></think>b", "a", "b"),
        ("<think>1 < 2 </thin</think>3</", "1 < 2 </thin", "3</"),
    ],
)
def test_examples(text: str, reasoning: str, answer: str) -> None:
    assert parse(text) == (reasoning, answer)


def test_text_is_returned_as_soon_as_it_is_certain() -> None:
    parser = ThinkParser()
    assert parser.push("<think>\nso") == ("so", "")
    assert parser.push(" far\n") == (" far", "")
    assert parser.push("</th") == ("", "")
    assert parser.push("ink>\n\nIt") == ("", "It")
    assert parser.push(" is") == ("", " is")


@given(
    text=st.text(alphabet="ab\n", max_size=30),
    words=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=4),
    cuts=st.lists(st.integers(0, 10**6), max_size=8),
)
def test_a_stop_string_ends_the_text_wherever_it_is_cut(text: str, words: list[str], cuts: list[int]) -> None:
    """The first place wins for the whole text; a stream stops at the first word it has seen whole."""
    finder = StopFinder(words)
    found = "".join([finder.push(character) for character in text] + [finder.finish()])
    ends = [text.find(word) + len(word) for word in words if word in text]
    assert finder.found == bool(ends)
    seen = text[: min(ends)] if ends else text
    assert found == seen[: min([seen.find(word) for word in words if word in seen], default=len(seen))]
    chunked = StopFinder(words)
    joined = "".join([chunked.push(piece) for piece in pieces_of(text, cuts)] + [chunked.finish()])
    assert chunked.found == finder.found
    assert len(joined) <= len(found) or joined == found


@pytest.mark.parametrize(
    ("text", "words", "held"),
    [("ab", ["bc"], "b"), ("abab", ["ababc", "b"], "abab"), ("ab", ["x"], ""), ("", ["x"], "")],
)
def test_partial_suffix(text: str, words: list[str], held: str) -> None:
    assert partial_suffix(text, words) == held
