"""Answers of a given form: of the next tokens only those that a JSON schema admits."""

import importlib.util
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

from nemo_reasoning.errors import EngineError, GenerationError

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_COMPACT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammar:
    """Where an answer stands in the form it has to take, kept by llguidance.

    A grammar belongs to one answer, and has to see all of its tokens.
    """

    def __init__(self, tokenizer: Any, schema: str) -> None:
        """Take the tokenizer of `grammar_tokenizer`, and a JSON schema as JSON.

        Raises:
            EngineError: The schema is invalid, or has a part that cannot be enforced.
        """
        from llguidance import LLMatcher

        try:
            form = LLMatcher.grammar_from_json_schema(schema, overrides=_COMPACT)
            problem = LLMatcher.validate_grammar(form, tokenizer)
        except ValueError as error:
            problem = str(error)
        if problem:
            problem = " ".join(problem.split())
            raise EngineError(f"the JSON schema of response_format or tools cannot be enforced: {problem}; change it")
        self._matcher = LLMatcher(tokenizer, form)
        self._matcher.compute_bitmask()
        if self.complete:  # such as {"$ref": "#"}, which the library finds out at the first token
            raise EngineError("the JSON schema of response_format or tools admits no answer at all; change it")

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits [vocabulary] without the tokens that must not come next."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed = torch.zeros(len(logits), dtype=torch.bool)
        size = min(len(bits), len(logits))
        allowed[:size] = torch.from_numpy(bits[:size].astype(bool))
        return logits.masked_fill(~allowed.to(logits.device), -torch.inf)

    def accept(self, token: int) -> None:
        """Take the next token of the answer.

        Raises:
            GenerationError: It does not fit, which a mask should have prevented.
        """
        if not self._matcher.consume_token(token):
            raise GenerationError(f"the answer left its JSON schema: {self._matcher.get_error().splitlines()[0]}")

    @property
    def complete(self) -> bool:
        """Whether nothing can follow."""
        stopped: bool = self._matcher.is_stopped()
        return stopped


def grammar_tokenizer(hf_tokenizer: Any, stop_ids: frozenset[int]) -> Any:
    """Return a tokenizer as `Grammar` needs it; making one takes about a second.

    Raises:
        EngineError: llguidance is not installed, or does not know this kind of tokenizer.
    """
    if importlib.util.find_spec("llguidance") is None:
        raise EngineError("response_format needs llguidance: pip install llguidance")
    from llguidance import LLTokenizer, TokenizerWrapper

    if not hf_tokenizer.is_fast:
        raise EngineError("response_format needs a fast tokenizer, and this model has none; ask for free text")
    return LLTokenizer(TokenizerWrapper(_Tokens(hf_tokenizer, stop_ids)), eos_token=sorted(stop_ids))


class _Tokens:
    """A tokenizer as llguidance asks for it: the bytes of every token, and what encodes a text.

    llguidance's own reader of Hugging Face files takes the letters of a byte-level vocabulary for themselves
    where the decoder is written another way, as in files made from GGUF.
    """

    def __init__(self, hf_tokenizer: Any, stop_ids: frozenset[int]) -> None:
        self._encode = hf_tokenizer.encode
        self.eos_token_id, self.bos_token_id = min(stop_ids), None
        names = hf_tokenizer.convert_ids_to_tokens(list(range(len(hf_tokenizer))))
        added = hf_tokenizer.added_tokens_decoder
        self.special_token_ids = [number for number, token in added.items() if token.special]
        letters = {letter: byte for byte, letter in bytes_to_unicode().items()}
        spell = _byte_level(letters) if any("\u0120" in name for name in names if name) else _sentencepiece
        self.tokens = [name.encode() if number in added else spell(name or "") for number, name in enumerate(names)]

    def __call__(self, text: str) -> list[int]:
        ids: list[int] = self._encode(text, add_special_tokens=False)
        return ids


def _byte_level(letters: Mapping[str, int]) -> Callable[[str], bytes]:
    """Return what spells a token of a vocabulary whose letters stand for bytes, as GPT-2's."""
    return lambda name: b"".join(bytes([letters[letter]]) if letter in letters else letter.encode() for letter in name)


def _sentencepiece(name: str) -> bytes:
    if _BYTE.fullmatch(name):
        return bytes([int(name[3:5], 16)])
    return name.replace("\u2581", " ").encode()
