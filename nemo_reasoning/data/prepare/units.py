"""Cut the rows of a subset into units of work, in the order in which they are taken.

The order is a function of the files and the seed alone, so neither workers nor restarts change it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nemo_reasoning.artifacts import atomic_path
from nemo_reasoning.config.data import DataSettings, RowSampling
from nemo_reasoning.data.prepare.files import Span, file_size, is_remote, owned_lines
from nemo_reasoning.data.prepare.inputs import Subset
from nemo_reasoning.data.prepare.row_groups import count_row_groups
from nemo_reasoning.data.schemas.dialogue import fraction
from nemo_reasoning.data.store import disk_errors, save_array
from nemo_reasoning.errors import DataError

_TYPICAL_ROW = 4096  # bytes; only sizes the units
_INDEX = np.dtype([("key", "f8"), ("file", "i4"), ("start", "i8"), ("length", "i4")])
_INDEX_SPAN = 64 * 2**20
_SMALL = 64 * 2**20  # bytes that are read as a whole in a moment, so that a sample need not be of blocks


@dataclass(frozen=True)
class Unit:
    """What one worker turns into one shard.

    Attributes:
        subset: Name of the subset.
        number: Place among the units of the subset.
        spans: Where the rows lie, in the order they are read.
        sampling: How rows are drawn; head reads each file from its beginning, so that lines can be numbered.
    """

    subset: str
    number: int
    spans: tuple[Span, ...]
    sampling: RowSampling

    @property
    def name(self) -> str:
        """A file name that no other unit has."""
        return f"{self.subset}-{self.number:07d}"


def plan_units(subset: Subset, data: DataSettings, index: Sequence[Path]) -> Iterator[Unit]:
    """Yield the units of a subset in the order they are taken.

    Args:
        subset: Plain JSON Lines files.
        data: Sampling, sizes and seed.
        index: What `IndexRows` wrote, for reservoir sampling; empty for the others.
    """
    sampling = sampling_of(subset, data)
    if sampling is RowSampling.head:
        groups: Iterator[tuple[Span, ...]] = ((span,) for span in _cut(subset, data.shard_mb * 2**20))
    elif subset.by_row_group:
        groups = _row_groups(subset, data)
    elif sampling is RowSampling.block:
        groups = _blocks(subset, data)
    else:
        groups = _reservoir(subset, index, rows_at_once=_unit_bytes(subset, data) // _TYPICAL_ROW)
    for number, spans in enumerate(groups):
        yield Unit(subset.name, number, spans, sampling)


def sampling_of(subset: Subset, data: DataSettings) -> RowSampling:
    """Return how rows are drawn from a subset: all rows in order, and small local files row by row."""
    if subset.rows is None:
        return RowSampling.head
    if data.sampling is RowSampling.block and not any(map(is_remote, subset.files)):
        small = sum(map(file_size, subset.files)) <= _SMALL
        return RowSampling.reservoir if small else RowSampling.block
    return data.sampling


def index_spans(subset: Subset, data: DataSettings) -> list[Span]:
    """Return what has to be indexed before reservoir sampling; nothing for the other kinds.

    Raises:
        DataError: The files are remote, so that all of them would have to be fetched.
    """
    if sampling_of(subset, data) is not RowSampling.reservoir:
        return []
    if remote := [file for file in subset.files if is_remote(file)]:
        raise DataError(
            f"data.sampling=reservoir would fetch all of {remote[0]}; choose block or head, or download it first"
        )
    return _cut(subset, _INDEX_SPAN)


@dataclass(frozen=True)
class IndexRows:
    """Notes where each row of a span lies, with a random key that depends on its bytes and the seed."""

    folder: Path
    seed: int

    def __call__(self, job: tuple[int, int, Span]) -> Path:
        """Write the index of (number, file, span) and return its path."""
        number, file, span = job
        path = self.folder / f"{number:06d}.npy"
        if path.exists():
            return path
        rows = [
            (
                fraction(line.content.decode("latin-1"), purpose="sample", seed=self.seed),
                file,
                line.offset,
                len(line.content),
            )
            for line in owned_lines(span)
            if line.content.strip()
        ]
        with disk_errors(path), atomic_path(path) as partial:
            save_array(partial, np.sort(np.array(rows, dtype=_INDEX), order=["key", "start"]))
        return path


def _cut(subset: Subset, size: int) -> list[Span]:
    """Return stretches of `size` bytes of every file, in order."""
    spans = []
    for address in subset.files:
        whole = file_size(address)
        spans += [Span(address, whole, start, min(whole, start + size)) for start in range(0, whole, size)]
    return spans


def _unit_bytes(subset: Subset, data: DataSettings) -> int:
    """Return the input of a unit: small for small samples, so that little is read for nothing."""
    wanted = (subset.rows or 0) * _TYPICAL_ROW // 8
    return min(data.shard_mb * 2**20, max(data.block_kb * 2**10, wanted))


def _row_groups(subset: Subset, data: DataSettings) -> Iterator[tuple[Span, ...]]:
    """Yield row groups in random order, one of each file in turn; a file is opened when its first is due."""
    seed = int(fraction(subset.name, purpose="blocks", seed=data.seed) * 2**53)
    numbers = np.random.Generator(np.random.PCG64(seed))
    waiting: list[tuple[str, list[int] | None]] = [
        (subset.files[place], None) for place in numbers.permutation(len(subset.files))
    ]
    while waiting:
        again = []
        for file, groups in waiting:
            left = numbers.permutation(count_row_groups(file)).tolist() if groups is None else groups
            if left:
                yield (Span(file, 0, 0, 0, row_group=left[0]),)
                again.append((file, left[1:]))
        waiting = again


def _blocks(subset: Subset, data: DataSettings) -> Iterator[tuple[Span, ...]]:
    """Yield groups of blocks in random order."""
    blocks = _cut(subset, data.block_kb * 2**10)
    seed = int(fraction(subset.name, purpose="blocks", seed=data.seed) * 2**53)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(blocks))
    together = max(1, _unit_bytes(subset, data) // (data.block_kb * 2**10))
    for first in range(0, len(order), together):
        yield tuple(blocks[place] for place in order[first : first + together])


def _reservoir(subset: Subset, index: Sequence[Path], *, rows_at_once: int) -> Iterator[tuple[Span, ...]]:
    """Yield rows by rising key: the first n are a uniform sample, whatever n turns out to be."""
    parts: list[NDArray[np.void]] = [np.load(path, mmap_mode="r") for path in index]
    if not parts:
        return
    sizes = [file_size(file) for file in subset.files]
    steps = max(1, math.ceil(sum(map(len, parts)) / max(1, rows_at_once)))
    edges = np.linspace(0, 1, steps + 1)
    for low, high in zip(edges, edges[1:], strict=False):
        cuts = [np.searchsorted(part["key"], [low, high]) for part in parts]
        rows = np.sort(
            np.concatenate([part[first:last] for part, (first, last) in zip(parts, cuts, strict=True)]),
            order=["key", "file", "start"],
        )
        yield tuple(
            Span(
                subset.files[row["file"]],
                sizes[row["file"]],
                int(row["start"]),
                int(row["start"]) + max(1, int(row["length"])),
            )
            for row in rows
        )
