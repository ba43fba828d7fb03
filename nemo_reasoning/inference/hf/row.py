"""A request in the running batch."""

import numpy as np
import torch

from nemo_reasoning.errors import EngineError, GenerationError
from nemo_reasoning.inference.sequence import TokenSequence


class Row:
    """A request in the batch.

    Attributes:
        sequence: Takes the logits.
        adapter: Number of its adapter; -1 for none.
        read: Tokens of its prompt that the model has read.
        damaged: Whether what was read of it is good for nobody.
        tokens: Those of its prompt, to compare.
    """

    __slots__ = ("adapter", "damaged", "read", "sequence", "tokens")

    def __init__(self, sequence: TokenSequence, adapter: int) -> None:
        """Take the request's sequence and the number of its adapter."""
        self.sequence, self.adapter, self.read, self.damaged = sequence, adapter, 0, False
        self.tokens = np.array(sequence.prompt, dtype=np.int32)

    @property
    def whole(self) -> bool:
        """Whether all of its prompt is read."""
        return self.read == len(self.sequence.prompt)

    @property
    def most(self) -> int:
        """Positions the row may come to hold."""
        return len(self.sequence.prompt) + self.sequence.limit

    @property
    def held(self) -> int:
        """Positions that hold what the model has read; the last token written is not among them."""
        return self.read + max(len(self.sequence.tokens) - 1, 0)


def advanced(row: Row, logits: torch.Tensor, likeliest: int) -> bool:
    """Write a row's next token, and return whether it is done; what fails here is this request's own."""
    try:
        return row.sequence.advance(logits, likeliest)
    except Exception as error:
        return failed(row, error)


def failed(row: Row, error: Exception) -> bool:
    """Fail one request, and return that it is done."""
    row.sequence.fail(generation_error(error))
    return True


def generation_error(error: Exception) -> EngineError:
    """Return an error of any library as one of ours."""
    return (
        error
        if isinstance(error, EngineError)
        else GenerationError(f"generation failed: {type(error).__name__}: {error}")
    )
