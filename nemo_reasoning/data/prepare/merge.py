"""Bring rows of many shards into one store, in any order, with a bounded part of them in memory."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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

    def write(self, numbers: NDArray[np.int64], *, store: Path, lines: Path | None) -> None:
        """Write a token store with the rows of these numbers, in this order, and their lines if a path is given."""
        with ThreadPoolExecutor(2) as both:  # copying and writing let the other one run
            jobs = [both.submit(self._write_store, numbers, store)]
            if lines is not None:
                jobs.append(both.submit(self._write_lines, numbers, lines))
            for job in jobs:
                job.result()

    def _write_store(self, numbers: NDArray[np.int64], store: Path) -> None:
        with TokenWriter(store) as writer:
            for part in self._parts(numbers):
                self._write_part(part, writer)

    def _write_lines(self, numbers: NDArray[np.int64], lines: Path) -> None:
        with lines.open("wb") as target:
            for part in self._parts(numbers):
                target.write(self._lines(part))

    def _parts(self, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        ends = np.cumsum(self.lengths[numbers])
        total = int(ends[-1]) if len(ends) else 0
        cuts = np.searchsorted(ends, np.arange(_TOKENS_AT_ONCE, total, _TOKENS_AT_ONCE))
        return (part for part in np.split(numbers, cuts) if len(part))

    def _write_part(self, numbers: NDArray[np.int64], writer: TokenWriter) -> None:
        """Copy rows shard by shard into their places in a buffer."""
        lengths = self.lengths[numbers]
        places = np.cumsum(lengths) - lengths
        tokens, loss_mask = np.empty(lengths.sum(), np.int32), np.empty(lengths.sum(), np.bool_)
        for shard, chosen in self._by_shard(numbers):
            for place, index in zip(places[chosen], self._index[numbers[chosen]], strict=True):
                row = slice(shard.token_ends[index], shard.token_ends[index + 1])
                target = slice(place, place + row.stop - row.start)
                tokens[target], loss_mask[target] = shard.tokens[row], shard.loss_mask[row]
        writer.extend(tokens, loss_mask, lengths)

    def _lines(self, numbers: NDArray[np.int64]) -> bytes:
        lines = [b""] * len(numbers)
        for shard, chosen in self._by_shard(numbers):
            for place, index in zip(chosen, self._index[numbers[chosen]], strict=True):
                lines[place] = shard.messages[shard.message_ends[index] : shard.message_ends[index + 1]].tobytes()
        return b"".join(lines)

    def _by_shard(self, numbers: NDArray[np.int64]) -> Iterator[tuple[Shard, NDArray[np.int64]]]:
        """Yield each shard with the places in `numbers` of its rows, rising within the shard."""
        by_shard = np.lexsort((self._index[numbers], self._shard[numbers]))
        shards = self._shard[numbers[by_shard]]
        for chosen in np.split(by_shard, np.flatnonzero(np.diff(shards)) + 1):
            yield Shard.open(self._folders[self._shard[numbers[chosen[0]]]]), chosen
