"""Bring rows of many shards into one store, in any order, with a bounded part of them in memory."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nemo_reasoning.config.data import Order
from nemo_reasoning.data.prepare.external import AT_ONCE, Sorter
from nemo_reasoning.data.prepare.shards import Shard
from nemo_reasoning.data.store import TokenWriter

_TOKENS_AT_ONCE, _ROWS_AT_ONCE = 16 * 2**20, 2**18


class Rows:
    """Kept rows of all shards, numbered in the order they were taken.

    Attributes:
        facts: Of dtype TAKEN, [rows], in a file.
        subsets: Names of the subsets, sorted.
    """

    def __init__(self, facts: NDArray[np.void], shards: Sequence[tuple[str, Path]]) -> None:
        """Take the rows, at least one, and subset and folder of their shards."""
        self.facts = facts
        self._folders = [folder for _, folder in shards]
        self.subsets = sorted({subset for subset, _ in shards})
        self._subset = np.array([self.subsets.index(subset) for subset, _ in shards])

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.facts)

    def subset_of(self, facts: NDArray[np.void]) -> NDArray[np.int64]:
        """Return the subset of rows as an index into `subsets`."""
        subset: NDArray[np.int64] = self._subset[facts["shard"]]
        return subset

    def parts(self, numbers: NDArray[np.int64] | None = None) -> Iterator[tuple[int, NDArray[np.void]]]:
        """Yield the rows of these numbers, or all, a bounded number of them at once, behind how many came before."""
        for first in range(0, len(self if numbers is None else numbers), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            yield first, np.array(self.facts[part if numbers is None else numbers[part]])

    def write_tokens(self, numbers: NDArray[np.int64], store: Path) -> None:
        """Write a token store with the rows of these numbers, in this order."""
        with TokenWriter(store) as writer:
            for part in self._parts(numbers):
                tokens, loss_mask = (self._gathered(part, name, "token_ends") for name in ("tokens", "loss_mask"))
                lengths = self.facts["length"][part]
                writer.extend(np.frombuffer(tokens, np.int32), np.frombuffer(loss_mask, np.bool_), lengths)

    def write_lines(self, numbers: NDArray[np.int64], path: Path) -> None:
        """Write the messages of these rows, in this order."""
        with path.open("wb") as target:
            for part in self._parts(numbers):
                target.write(self._gathered(part, "messages", "message_ends"))

    def _parts(self, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        for first in range(0, len(numbers), _ROWS_AT_ONCE):
            some = numbers[first : first + _ROWS_AT_ONCE]
            ends = np.cumsum(self.facts["length"][some], dtype=np.int64)
            cuts = np.searchsorted(ends, np.arange(_TOKENS_AT_ONCE, int(ends[-1]), _TOKENS_AT_ONCE))
            yield from (part for part in np.split(some, cuts) if len(part))

    def _gathered(self, numbers: NDArray[np.int64], array: str, ends: str) -> bytes:
        """Return what these rows have in an array of their shards, one behind the other; `ends` names their ends."""
        pieces = [memoryview(b"")] * len(numbers)
        for shard, chosen in self._by_shard(numbers):
            content, edges = memoryview(getattr(shard, array)), getattr(shard, ends)
            index = self.facts["index"][numbers[chosen]]
            starts, stops = edges[index].tolist(), edges[index + 1].tolist()
            for place, start, stop in zip(chosen.tolist(), starts, stops, strict=True):
                pieces[place] = content[start:stop]
        return b"".join(pieces)

    def _by_shard(self, numbers: NDArray[np.int64]) -> Iterator[tuple[Shard, NDArray[np.int64]]]:
        """Yield each shard with the places in `numbers` of its rows, rising within the shard."""
        shards, index = self.facts["shard"][numbers], self.facts["index"][numbers]
        by_shard = np.lexsort((index, shards))
        for chosen in np.split(by_shard, np.flatnonzero(np.diff(shards[by_shard])) + 1):
            yield Shard.open(self._folders[shards[chosen[0]]]), chosen


def in_random_order(rows: Rows, *, validation: bool, scratch: Path) -> NDArray[np.int64]:
    """Return the numbers of a split's rows by their random keys; like the rows, they lie in a file."""
    sorter = Sorter(len(rows), scratch)
    for first, facts in rows.parts():
        chosen = np.flatnonzero(facts["validation"] == validation)
        sorter.add(facts["order"][chosen], first + chosen)
    return sorter.numbers()


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
    chosen, copies, subset = [], [], rows.subset_of(rows.facts[numbers])
    for place, name in enumerate(rows.subsets):
        own = numbers[subset == place]
        own = own[np.argsort(rows.facts["order"][own], kind="stable")]
        if len(own):
            places = np.arange(wanted[name])
            chosen.append(own[places % len(own)])
            copies.append((places // len(own)).astype(np.uint64))
    return np.concatenate(chosen), np.concatenate(copies)
