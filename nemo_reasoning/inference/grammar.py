"""Answers of a given form: of the next tokens only those that a JSON schema admits."""

import importlib.util
from typing import Any

import numpy as np
import torch

from nemo_reasoning.errors import EngineError

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
            raise EngineError(f"response_format: the JSON schema cannot be enforced: {problem}; change it")
        self._matcher = LLMatcher(tokenizer, form)

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits [vocabulary] without the tokens that must not come next."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed = torch.zeros(len(logits), dtype=torch.bool)
        size = min(len(bits), len(logits))
        allowed[:size] = torch.from_numpy(bits[:size].astype(bool))
        return logits.masked_fill(~allowed.to(logits.device), -torch.inf)

    def accept(self, token: int) -> None:
        """Take the next token of the answer."""
        self._matcher.consume_token(token)

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
    from llguidance.hf import from_tokenizer

    try:
        return from_tokenizer(hf_tokenizer, eos_token=sorted(stop_ids))
    except ValueError as error:
        raise EngineError(f"response_format: llguidance cannot use this model's tokenizer: {error}") from error
