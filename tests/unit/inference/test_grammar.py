"""Tokens that a JSON schema admits, with vocabularies of both kinds."""

import json
from pathlib import Path

import pytest
import torch

from nemo_reasoning.data.chat import load_template
from nemo_reasoning.errors import EngineError, GenerationError
from nemo_reasoning.inference.tokenizer import ChatTokenizer, load_chat_tokenizer

SCHEMA = {"type": "object", "properties": {"é": {"type": "string"}}, "required": ["é"], "additionalProperties": False}


@pytest.fixture(params=["byte-level", "letters for bytes"])
def tokenizer(request: pytest.FixtureRequest, random_model: Path, smollm2_hf: Path) -> ChatTokenizer:
    folder = random_model if request.param == "byte-level" else smollm2_hf
    return load_chat_tokenizer(folder, None, chat_template=load_template("chatml"))


def test_an_answer_of_the_form_is_admitted_to_its_end(tokenizer: ChatTokenizer) -> None:
    grammar = tokenizer.grammar(json.dumps(SCHEMA))
    for token in tokenizer.hf_tokenizer.encode('{"é": "rød 42"}', add_special_tokens=False):
        assert not grammar.complete
        assert torch.isfinite(grammar.mask(torch.zeros(len(tokenizer.hf_tokenizer) + 8))[token])
        grammar.accept(token)
    assert grammar.complete


def test_what_does_not_fit_is_masked_and_never_taken(tokenizer: ChatTokenizer) -> None:
    grammar = tokenizer.grammar(json.dumps(SCHEMA))
    [other] = tokenizer.hf_tokenizer.encode("7", add_special_tokens=False)
    assert grammar.mask(torch.zeros(len(tokenizer.hf_tokenizer)))[other] == -torch.inf
    with pytest.raises(GenerationError, match="left its JSON schema"):
        grammar.accept(other)


@pytest.mark.parametrize("schema", ['{"type": "no such type"}', "[", '{"$ref": "#/nowhere"}', '{"$ref": "#"}'])
def test_a_schema_that_cannot_be_kept_is_refused(tokenizer: ChatTokenizer, schema: str) -> None:
    with pytest.raises(EngineError, match="response_format"):
        tokenizer.grammar(schema)
