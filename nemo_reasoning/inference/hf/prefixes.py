"""What the model has read of other requests, for those that begin alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from nemo_reasoning.inference.hf.kv_cache import KVCache
from nemo_reasoning.inference.hf.row import Row

_MOST = 128  # texts that are kept: each is compared with every new prompt
_WORTH_COPYING = 8  # tokens that take longer to read than to copy
_WORTH_WAITING = 32  # tokens that take about as long to read as the others' next token


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """Tokens that were read with an adapter, and their keys and values in each layer."""

    tokens: Any  # int32 [positions]
    adapter: int
    states: Sequence[torch.Tensor]


class Beginning(NamedTuple):
    """The longest beginning of a prompt that has been read before.

    Attributes:
        length: In tokens; 0 if it is too short to be of use.
        copy: Copies it to a place in the cache that has room for it.
    """

    length: int
    copy: Callable[[int], None]


class Prefixes:
    """What was read of rows that run or have left, the latest last."""

    def __init__(self, cache: KVCache, *, positions: int) -> None:
        """Take the cache of the rows, and how many positions to keep at most of those that have left."""
        self._cache, self._positions = cache, positions
        self._kept: list[_Kept] = []

    def keep(self, row: Row, place: int) -> None:
        """Keep what was read of a row that leaves its place."""
        if not _WORTH_COPYING <= row.held <= self._positions or row.damaged:
            return
        tokens = np.array([*row.sequence.prompt, *row.sequence.tokens][: row.held], dtype=np.int32)
        self._kept = [
            one for one in self._kept if one.adapter != row.adapter or _alike(one.tokens, tokens) < len(one.tokens)
        ]
        self._kept.append(_Kept(tokens, row.adapter, self._cache.copy(place, length=row.held)))
        self.limit(self._positions)

    def limit(self, positions: int) -> None:
        """Forget what was used longest ago until no more than some positions are kept."""
        held = sum(len(one.tokens) for one in self._kept)
        while self._kept and (held > positions or len(self._kept) > _MOST):
            held -= len(self._kept.pop(0).tokens)

    def find(self, row: Row, rows: Sequence[Row]) -> Beginning:
        """Return the longest beginning of a new row's prompt, but for its last token, that was read before.

        Args:
            row: The new one.
            rows: All that have a place in the cache, in this order.
        """
        prompt = row.tokens[:-1]  # what follows the last token is told by reading it
        most, found = _WORTH_COPYING - 1, Beginning(0, lambda place: None)
        for place, other in enumerate(rows):
            alike = _alike(other.tokens[: other.read], prompt) if other.adapter == row.adapter else 0
            if alike > most:
                most, found = alike, Beginning(alike, partial(self._cache.move, place, length=alike))
        for one in self._kept:
            alike = _alike(one.tokens, prompt) if one.adapter == row.adapter else 0
            if alike > most:
                most, found = alike, Beginning(alike, partial(self._recall, one, length=alike))
        return found

    def _recall(self, one: _Kept, place: int, *, length: int) -> None:
        self._cache.put(place, one.states, length=length)
        self._kept.remove(one)
        self._kept.append(one)


def worth_waiting(row: Row, others: Sequence[Row], *, known: int) -> bool:
    """Say whether a prompt is better read when others are, of which so much more can be copied than is known now."""
    return any(
        other.adapter == row.adapter and _alike(other.tokens, row.tokens[:-1]) >= known + _WORTH_WAITING
        for other in others
    )


def _alike(one: Any, other: Any) -> int:
    """Return how many tokens two texts begin with alike."""
    size = min(len(one), len(other))
    differ = one[:size] != other[:size]
    return int(differ.argmax()) if differ.any() else size
