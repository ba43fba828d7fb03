"""Arrays with an entry for each row, in files instead of the memory of the process that prepares."""

import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 2**20  # entries that are worked on in memory
_MOST_BUCKETS = 256  # files that are open together
_KEYED = np.dtype([("key", "u8"), ("number", "i8")])


class ArrayFile:
    """An array that grows at its end, in a file without a name that is gone with the process."""

    def __init__(self, dtype: Any, folder: Path) -> None:
        """Choose the kind of its entries, and the folder whose disk they take."""
        self._dtype, self.length = np.dtype(dtype), 0
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as this
        weakref.finalize(self, self._file.close)

    def append(self, entries: NDArray[Any]) -> None:
        """Add entries of this dtype, [n]."""
        self._file.write(np.ascontiguousarray(entries, self._dtype).data)
        self.length += len(entries)

    def mapped(self) -> NDArray[Any]:
        """Return all entries so far, [n]; they are read from the file where they are looked at."""
        if not self.length:
            return np.empty(0, self._dtype)
        self._file.flush()
        return np.asarray(np.memmap(self._file, self._dtype, mode="r", shape=(self.length,)))


def merged(first: NDArray[np.uint64], second: NDArray[np.uint64], folder: Path) -> NDArray[np.uint64]:
    """Return the hashes of two sorted arrays as one, in a file where there are many."""
    parts = -(-(len(first) + len(second)) // AT_ONCE)
    if parts <= 1:
        return np.union1d(first, second)
    edges = np.array([2**64 * part // parts for part in range(1, parts)], np.uint64)  # hashes are spread evenly
    result = ArrayFile(np.uint64, folder)
    pieces = (np.split(array, np.searchsorted(array, edges)) for array in (first, second))
    for low, high in zip(*pieces, strict=True):
        result.append(np.union1d(low, high))
    return result.mapped()


class Sorter:
    """Numbers of rows, sorted by a random key of 64 bits."""

    def __init__(self, most: int, folder: Path) -> None:
        """Take how many rows there are at most, and the folder whose disk they take."""
        count = min(_MOST_BUCKETS, max(1, -(-most // AT_ONCE)))
        self._folder, self._buckets = folder, [ArrayFile(_KEYED, folder) for _ in range(count)]

    def add(self, keys: NDArray[np.uint64], numbers: NDArray[np.int64]) -> None:
        """Add rows, [n]; their numbers rise from call to call."""
        keyed = np.empty(len(keys), _KEYED)
        keyed["key"], keyed["number"] = keys, numbers
        places = (keys >> np.uint64(32)) * np.uint64(len(self._buckets)) >> np.uint64(32)
        for place, bucket in enumerate(self._buckets):
            bucket.append(keyed[places == place])

    def numbers(self) -> NDArray[np.int64]:
        """Return the numbers by rising key, those of equal keys by rising number."""
        result = ArrayFile(np.int64, self._folder)
        for bucket in self._buckets:
            keyed = bucket.mapped()
            result.append(keyed["number"][np.argsort(keyed["key"], kind="stable")])
        return result.mapped()
