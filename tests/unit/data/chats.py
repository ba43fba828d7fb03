"""Tokenizers, dialogues and rows for the tests of the data room."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tiny import byte_tokenizer, chatml_tokenizer, llama3_tokenizer
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.reasoning.messages import Message

TEMPLATES = ("llama3", "chatml", "llama2", "mistral")  # that keep every turn; test_own_switch.py has qwen3
END_OF_TURN = {
    **{"llama3": "<|eot_id|>", "chatml": "<|im_end|>", "llama2": "</s>"},
    **{"qwen3": "<|im_end|>", "mistral": "</s>"},
}


@cache
def tokenizer(template: str) -> PreTrainedTokenizerFast:
    """Return a byte tokenizer with the special tokens of a template; Llama's add a BOS to plain text."""
    if template in ("chatml", "qwen3"):
        return chatml_tokenizer()
    if template == "llama3":
        return _adding_bos(llama3_tokenizer())
    marks = ("[INST]", "[/INST]") if template == "mistral" else ()
    return _adding_bos(byte_tokenizer(specials=("<unk>", "<s>", "</s>", *marks), bos="<s>", eos="</s>"))


def _adding_bos(given: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return the tokenizer as Llama's are: it writes the beginning-of-text token itself."""
    given.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{given.bos_token} $A", special_tokens=[(given.bos_token, given.bos_token_id)]
    )
    return given


@cache
def formatter(template: str) -> ChatFormatter:
    """Return a formatter with a template of the package and its byte tokenizer."""
    return ChatFormatter(tokenizer(template), load_template(template))


def dialogue(*turns: str, system: str = "") -> list[Message]:
    """Return user and assistant turns in turn, below a system turn if there is one."""
    spoken = [Message("assistant" if place % 2 else "user", turn) for place, turn in enumerate(turns)]
    return [Message("system", system), *spoken] if system else spoken


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    """Write JSON Lines; a row that is bytes is written as it is."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path
