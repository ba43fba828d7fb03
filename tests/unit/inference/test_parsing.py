"""The streaming parser against a whole-text one, and stop strings."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nemo_reasoning.inference.detokenizer import StopFinder
from nemo_reasoning.reasoning.tags import ThinkingParser, partial_suffix, split_thinking

TAGS = ["<think>", "</think>", "<thi", "nk>", "<", "/", "</", "think>", "</think", "<<think>>"]
texts = st.lists(st.one_of(st.sampled_from([*TAGS, " ", "\n", "a", "b c", "é", "\u3000"]), st.text(max_size=4))).map(
    "".join
)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in zip(edges, edges[1:], strict=False)]


def stream(pieces: list[str], *, prefix: str) -> tuple[str, str]:
    parser = ThinkingParser(prefix)
    parts = [*(parser.push(piece) for piece in pieces), parser.finish()]
    return "".join(part.reasoning for part in parts), "".join(part.answer for part in parts)


def reference(text: str) -> tuple[str, str]:
    """Divide a whole text with one pattern."""
    block = re.match(r"(?s)\s*<think>(.*?)(?:</think>(.*)|\Z)", text)
    return (block[1].strip(), (block[2] or "").lstrip()) if block else ("", text.lstrip())


@given(text=texts, cuts=st.lists(st.integers(0, 10**6), max_size=12), thinking=st.booleans())
def test_any_chunking_of_any_text_equals_the_whole_text(text: str, cuts: list[int], thinking: bool) -> None:
    prefix = "<think>" if thinking else ""
    expected = reference(prefix + text)
    assert stream([text], prefix=prefix) == expected
    assert stream(pieces_of(text, cuts), prefix=prefix) == expected
    assert stream(list(text), prefix=prefix) == expected
    assert split_thinking(text, "on", prefilled=thinking)[:2] == expected


@given(reasoning=texts, answer=texts, cut=st.integers(0, 10**6))
def test_what_stands_already_is_not_said_again(reasoning: str, answer: str, cut: int) -> None:
    assume("</think>" not in reasoning)
    text = f"<think>\n{reasoning}</think>\n\n{answer}"
    prefix, rest = text[: cut % len(text)], text[cut % len(text) :]
    parser = ThinkingParser(prefix)
    parts = [parser.push(rest), parser.finish()]
    said = "".join(part.reasoning + part.answer for part in parts)
    whole = "".join(split_thinking(text, "on")[:2])
    assert whole.endswith(said.lstrip()) or said in text[len(prefix) :]


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("", "", ""),
        ("Hi", "", "Hi"),
        ("<think>\na\n</think>\n\nb\n", "a", "b\n"),
        ("<think>\na", "a", ""),
        ("a</think>b", "", "a</think>b"),
        ("hello <think>a</think>b", "", "hello <think>a</think>b"),
        ("<think>a</think>b<think>c</think>d", "a", "b<think>c</think>d"),
        ("<think><think>a</think></think>b", "<think>a", "</think>b"),
        ("<think>1 < 2 </thin</think>3</", "1 < 2 </thin", "3</"),
        (" \n<think", "", "<think"),
    ],
)
def test_examples(text: str, reasoning: str, answer: str) -> None:
    assert stream([text], prefix="") == (reasoning, answer)


@pytest.mark.parametrize(
    ("prefix", "text", "reasoning", "answer"),
    [
        ("<think>\nSo", " far\n</think>\n\nIt", " far", "It"),
        ("<think>\n", "So</think>It", "So", "It"),
        ("<think>a</think>\n\nThe answer", " is </think> 4.", "", " is </think> 4."),
        ("The answer", " is <think> 4.", "", " is <think> 4."),
    ],
)
def test_a_beginning_is_continued(prefix: str, text: str, reasoning: str, answer: str) -> None:
    assert stream(list(text), prefix=prefix) == (reasoning, answer)


def test_text_is_returned_as_soon_as_it_is_certain() -> None:
    parser = ThinkingParser()
    assert parser.push("<think>\nso") == ("so", "")
    assert parser.push(" far\n") == (" far", "")
    assert parser.push("</th") == ("", "")
    assert parser.push("ink>\n\nIt") == ("", "It")
    assert parser.push(" is ") == ("", " is ")


@given(
    text=st.text(alphabet="ab\n", max_size=30),
    words=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=4),
    cuts=st.lists(st.integers(0, 10**6), max_size=8),
)
def test_a_stop_string_ends_the_text_wherever_it_is_cut(text: str, words: list[str], cuts: list[int]) -> None:
    """The string that ends first wins; of two that end together, the longer."""
    ends = [(text.find(word) + len(word), text.find(word)) for word in words if word in text]
    expected = text[: min(ends)[1]] if ends else text
    for pieces in ([text], list(text), pieces_of(text, cuts)):
        finder = StopFinder(words)
        said = "".join([finder.push(piece) for piece in pieces] + [finder.finish()])
        assert said == finder.before(text) == expected
        assert finder.found == bool(ends)


@pytest.mark.parametrize(
    ("text", "words", "held"),
    [("ab", ["bc"], "b"), ("abab", ["ababc", "b"], "abab"), ("ab", ["x"], ""), ("", ["x"], "")],
)
def test_partial_suffix(text: str, words: list[str], held: str) -> None:
    assert partial_suffix(text, words) == held
