"""Bring rows of many shards into one store, in any order, with a bounded part of them in memory."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nemo_reasoning.config.data import Order
from nemo_reasoning.data.prepare.select import Taken
from nemo_reasoning.data.prepare.shards import Shard
from nemo_reasoning.data.store import TokenWriter

_TOKENS_AT_ONCE = 16 * 2**20


class Rows:
    """Kept rows of all shards, numbered in the order they were taken.

    Attributes:
        facts: Of dtype ROW, [rows].
        lengths: Tokens, [rows], int64.
        subsets: Names of the subsets; `subset` indexes them, [rows].
    """

    def __init__(self, taken: Sequence[Taken]) -> None:
        """Put the shards' rows one behind the other; `taken` holds at least one."""
        self._folders = [part.folder for part in taken]
        sizes = [len(part.indices) for part in taken]
        self._shard = np.repeat(np.arange(len(taken), dtype=np.int32), sizes)
        self._index = np.concatenate([part.indices for part in taken])
        self.facts: NDArray[np.void] = np.concatenate([part.rows for part in taken])
        self.lengths: NDArray[np.int64] = np.concatenate([part.lengths for part in taken])
        self.subsets = sorted({part.subset for part in taken})
        self.subset = np.repeat([self.subsets.index(part.subset) for part in taken], sizes)

    def write_tokens(self, numbers: NDArray[np.int64], store: Path) -> None:
        """Write a token store with the rows of these numbers, in this order."""
        with TokenWriter(store) as writer:
            for part in self._parts(numbers):
                tokens, loss_mask = (self._gathered(part, name, "token_ends") for name in ("tokens", "loss_mask"))
                writer.extend(np.frombuffer(tokens, np.int32), np.frombuffer(loss_mask, np.bool_), self.lengths[part])

    def write_lines(self, numbers: NDArray[np.int64], path: Path) -> None:
        """Write the messages of these rows, in this order."""
        with path.open("wb") as target:
            for part in self._parts(numbers):
                target.write(self._gathered(part, "messages", "message_ends"))

    def _parts(self, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        ends = np.cumsum(self.lengths[numbers])
        total = int(ends[-1]) if len(ends) else 0
        cuts = np.searchsorted(ends, np.arange(_TOKENS_AT_ONCE, total, _TOKENS_AT_ONCE))
        return (part for part in np.split(numbers, cuts) if len(part))

    def _gathered(self, numbers: NDArray[np.int64], array: str, ends: str) -> bytes:
        """Return what these rows have in an array of their shards, one behind the other; `ends` names their ends."""
        pieces = [memoryview(b"")] * len(numbers)
        for shard, chosen in self._by_shard(numbers):
            content, edges = memoryview(getattr(shard, array)), getattr(shard, ends)
            index = self._index[numbers[chosen]]
            starts, stops = edges[index].tolist(), edges[index + 1].tolist()
            for place, start, stop in zip(chosen.tolist(), starts, stops, strict=True):
                pieces[place] = content[start:stop]
        return b"".join(pieces)

    def _by_shard(self, numbers: NDArray[np.int64]) -> Iterator[tuple[Shard, NDArray[np.int64]]]:
        """Yield each shard with the places in `numbers` of its rows, rising within the shard."""
        by_shard = np.lexsort((self._index[numbers], self._shard[numbers]))
        shards = self._shard[numbers[by_shard]]
        for chosen in np.split(by_shard, np.flatnonzero(np.diff(shards)) + 1):
            yield Shard.open(self._folders[self._shard[numbers[chosen[0]]]]), chosen


def final_order(rows: NDArray[np.void], order: Order) -> NDArray[np.int64]:
    """Return the rows' numbers in the order they are written, [rows].

    Args:
        rows: Facts on the rows, of dtype ROW.
        order: Shuffled by a key that depends on a row's content and the seed; or as a curriculum, short
            completions first, where rows with and without thinking are spread evenly over each other
            (one for one where there are as many).
    """
    if order is Order.shuffle:
        return np.argsort(rows["order"], kind="stable")
    modes = [np.flatnonzero(rows["thinking"] == thinking) for thinking in (True, False)]
    by_length = [mode[np.lexsort((rows["order"][mode], rows["completion"][mode]))] for mode in modes]
    return _interleave(*by_length)


def _interleave(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Merge two sequences so that each is spread evenly; at a tie the first goes first."""
    places = np.concatenate([_middles(len(first), len(second)), _middles(len(second), len(first))])
    return np.concatenate([first, second])[np.argsort(places, kind="stable")]


def _middles(count: int, others: int) -> NDArray[np.int64]:
    """Return (place + 1/2) / count of each element, times 2 * count * others, which makes it whole."""
    return (2 * np.arange(count, dtype=np.int64) + 1) * max(others, 1)


def repeated(
    rows: Rows, numbers: NDArray[np.int64], *, wanted: Mapping[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return rows of each subset as often as it takes to have as many as are wanted.

    Args:
        rows: All rows.
        numbers: The rows to take, each once.
        wanted: Rows of each subset, copies included.

    Returns:
        Numbers of rows, and the how-manieth copy of its row each is, both [sum of wanted].
    """
    chosen, copies = [], []
    for place, name in enumerate(rows.subsets):
        own = numbers[rows.subset[numbers] == place]
        own = own[np.argsort(rows.facts["order"][own], kind="stable")]
        if len(own):
            places = np.arange(wanted[name])
            chosen.append(own[places % len(own)])
            copies.append((places // len(own)).astype(np.uint64))
    return np.concatenate(chosen), np.concatenate(copies)
