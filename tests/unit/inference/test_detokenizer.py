"""Decoding one token at a time against decoding all of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import chatml_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from nemo_reasoning.inference.detokenizer import Detokenizer

TOKENIZER = chatml_tokenizer()


def detokenizer(tokenizer: PreTrainedTokenizerBase = TOKENIZER) -> Detokenizer:
    return Detokenizer(lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True))


@given(tokens=st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=24))
def test_pieces_join_to_the_whole_even_for_broken_bytes(tokens: list[int]) -> None:
    stream = detokenizer()
    pieces = [stream.push(token) for token in tokens]
    assert "".join([*pieces, stream.flush()]) == TOKENIZER.decode(tokens, skip_special_tokens=True)
    assert stream.flush() == ""


@pytest.mark.parametrize("text", ["It's 4 °C → 🙂 fine.\n\n  so", "<think>\nño\n</think>\n\n42", "日本語 text"])
def test_a_real_tokenizer_streams_whole_characters(smollm2_hf: Path, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2_hf)
    stream = detokenizer(tokenizer)
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_peeking_changes_nothing() -> None:
    stream = detokenizer()
    euro = TOKENIZER.encode("€")
    assert [stream.peek(euro[0]), stream.push(euro[0]), stream.push(euro[1])] == ["", "", ""]
    assert [stream.peek(TOKENIZER.encode("a")[0]), stream.peek(euro[2]), stream.push(euro[2])] == ["\ufffda", "€", "€"]


def test_truncated_tokens_are_forgotten() -> None:
    stream = detokenizer()
    for token in TOKENIZER.encode("abcdef"):
        stream.push(token)
    stream.truncate(3)
    assert [stream.push(token) for token in TOKENIZER.encode("xé")] == ["x", "", "é"]
