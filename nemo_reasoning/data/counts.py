"""How much one optimiser step processes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchCounts:
    """Sizes of a global batch, over all data-parallel ranks.

    Attributes:
        samples: Rows.
        tokens: Positions computed, padding included.
        nonpad_tokens: Positions that hold a row's token.
        supervised_tokens: Positions whose next token is a target.
    """

    samples: int
    tokens: int
    nonpad_tokens: int
    supervised_tokens: int
