"""Decide which rows share a sequence: bins of whole rows, as full as can be.

Works on the histogram of the lengths instead of on the rows, so that half a million rows take less
than a second where first-fit over rows takes hours.
"""

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nemo_reasoning.data.disk import save_array
from nemo_reasoning.errors import DataError


@dataclass(frozen=True)
class PackingPlan:
    """Bins of rows.

    Attributes:
        rows: Row numbers, bin after bin, [rows], int64; every row once.
        ends: Where each bin begins in `rows`, and the last one's end, [bins + 1], int64.
        capacity: Most positions of a bin.
    """

    rows: NDArray[np.int64]
    ends: NDArray[np.int64]
    capacity: int

    def __len__(self) -> int:
        """Return the number of bins."""
        return len(self.ends) - 1

    def __getitem__(self, number: int) -> NDArray[np.int64]:
        """Return the rows of a bin."""
        return self.rows[self.ends[number] : self.ends[number + 1]]

    def efficiency(self, lengths: NDArray[np.int64]) -> float:
        """Return the share of all bins' positions that hold a row's, given the rows' lengths."""
        return float(lengths.sum() / (len(self) * self.capacity)) if len(self) else 1.0

    def save(self, folder: Path) -> None:
        """Write `packing_rows.npy` and `packing_ends.npy`."""
        save_array(folder / "packing_rows.npy", self.rows)
        save_array(folder / "packing_ends.npy", self.ends)

    @classmethod
    def open(cls, folder: Path, *, capacity: int) -> "PackingPlan":
        """Map what `save` wrote."""
        rows, ends = (np.load(folder / f"packing_{name}.npy", mmap_mode="r") for name in ("rows", "ends"))
        return cls(rows, ends, capacity)


class _Stock:
    """Lengths that are left, with constant-time answers from the bits of two integers."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.counts = capacity, [0] * (capacity + 1)
        self._lengths = self._mirrored = 0  # bit l, and bit capacity - l, tell whether length l is there

    def add(self, length: int, count: int) -> None:
        if not self.counts[length]:
            self._lengths |= 1 << length
            self._mirrored |= 1 << (self.capacity - length)
        self.counts[length] += count

    def remove(self, length: int, count: int) -> None:
        self.counts[length] -= count
        if not self.counts[length]:
            self._lengths ^= 1 << length
            self._mirrored ^= 1 << (self.capacity - length)

    def longest(self, room: int) -> int:
        """Return the longest length that fits, or 0."""
        return max(0, (self._lengths & ((1 << (room + 1)) - 1)).bit_length() - 1)

    def pair(self, room: int) -> tuple[int, int] | None:
        """Return two lengths that fill the room exactly."""
        pairs = self._lengths & (self._mirrored >> (self.capacity - room))
        longer = pairs.bit_length() - 1
        if longer <= 0 or (2 * longer == room and self.counts[longer] < 2):
            return None
        return longer, room - longer

    def fill(self, room: int, *, exact_pairs: bool) -> list[int]:
        """Remove lengths that fit together and return them: the longest first, or a pair that leaves no room."""
        taken: list[int] = []
        while room and (longest := self.longest(room)):
            found = self.pair(room) if exact_pairs and longest < room else None
            for length in found or (longest,):
                self.remove(length, 1)
                taken.append(length)
                room -= length
        return taken


def pack(lengths: NDArray[np.int64], capacity: int) -> PackingPlan:
    """Pack rows in any order: never in more bins than first-fit-decreasing needs.

    Bins are filled with the longest length that fits, which gives first-fit-decreasing's bins, and
    once more with pairs preferred that fill a bin exactly; the better of the two plans is returned.

    Args:
        lengths: Positions of each row, [rows].
        capacity: Most positions of a bin.

    Raises:
        DataError: A row is empty, or longer than a bin.
    """
    _check(lengths, capacity)
    plans = [_bins(lengths, capacity, exact_pairs=exact_pairs) for exact_pairs in (False, True)]
    bins = min(plans, key=lambda plan: sum(count for _, count in plan))
    return _deal(lengths, capacity, bins)


def _bins(lengths: NDArray[np.int64], capacity: int, *, exact_pairs: bool) -> list[tuple[list[int], int]]:
    """Return bins as (their lengths, how many such bins)."""
    stock = _Stock(capacity)
    for length, count in zip(*(column.tolist() for column in np.unique(lengths, return_counts=True)), strict=True):
        stock.add(length, count)
    bins = []
    while stock.longest(capacity):
        taken = stock.fill(capacity, exact_pairs=exact_pairs)
        needed = {length: taken.count(length) for length in taken}
        again = min(stock.counts[length] // count for length, count in needed.items())
        if again:
            for length, count in needed.items():
                stock.remove(length, count * again)
        bins.append((taken, 1 + again))
    return bins


def _deal(lengths: NDArray[np.int64], capacity: int, bins: list[tuple[list[int], int]]) -> PackingPlan:
    """Put rows into bins of lengths; rows of equal length in their order."""
    sizes = np.repeat([len(taken) for taken, _ in bins], [count for _, count in bins])
    wanted = np.concatenate([np.tile(np.array(taken, dtype=np.int64), count) for taken, count in bins] or [lengths])
    rows = np.empty(len(lengths), dtype=np.int64)
    rows[np.argsort(wanted, kind="stable")] = np.argsort(lengths, kind="stable")
    return PackingPlan(rows, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]), capacity)


def pack_in_order(lengths: NDArray[np.int64], capacity: int, *, window: int) -> PackingPlan:
    """Pack rows so that their order is kept but for a window, as a curriculum needs.

    Every bin begins with the first row that is left, so bins follow each other as their first rows do,
    and its other rows come less than `window` places later.

    Args:
        lengths: Positions of each row, [rows].
        capacity: Most positions of a bin.
        window: How far apart rows of a bin may lie.

    Raises:
        DataError: A row is empty, or longer than a bin.
    """
    _check(lengths, capacity)
    sizes, stock, rows, ends = lengths.tolist(), _Stock(capacity), list[int](), [0]
    waiting: dict[int, deque[int]] = {}
    packed = np.zeros(len(sizes) + 1, dtype=np.bool_)
    first = entered = 0
    while first < len(sizes):
        while entered < min(first + window, len(sizes)):
            waiting.setdefault(sizes[entered], deque()).append(entered)
            stock.add(sizes[entered], 1)
            entered += 1
        stock.remove(sizes[first], 1)
        for length in [sizes[first], *stock.fill(capacity - sizes[first], exact_pairs=True)]:
            row = waiting[length].popleft()
            packed[row] = True
            rows.append(row)
        ends.append(len(rows))
        while packed[first]:
            first += 1
    return PackingPlan(np.array(rows, dtype=np.int64), np.array(ends, dtype=np.int64), capacity)


def _check(lengths: NDArray[np.int64], capacity: int) -> None:
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= capacity:
        raise DataError(
            f"lengths from {lengths.min()} to {lengths.max()} cannot be packed into bins of {capacity}; rows must be "
            "neither empty nor longer: raise seq_length"
        )
