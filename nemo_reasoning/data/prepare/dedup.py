"""Find rows that were there before, exactly or nearly."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_PERMUTATIONS, _BANDS, _SHINGLE, _SEED = 128, 16, 5, 1


class Seen:
    """A set of 64-bit hashes in eight bytes each, for tens of millions of rows.

    Sorted arrays of doubling size, merged as in a log-structured tree.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._levels: list[NDArray[np.uint64]] = []

    def new(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Tell which hashes are not in the set; of equal ones among them, the first."""
        unique, first = np.unique(hashes, return_index=True)
        known = np.zeros(len(unique), dtype=np.bool_)
        for level in self._levels:
            places = np.minimum(np.searchsorted(level, unique), len(level) - 1)
            known |= level[places] == unique
        new = np.zeros(len(hashes), dtype=np.bool_)
        new[first[~known]] = True
        return new

    def add(self, hashes: NDArray[np.uint64]) -> None:
        """Add hashes that are new."""
        self._push(np.sort(hashes))

    def _push(self, level: NDArray[np.uint64]) -> None:
        if not len(level):
            return
        while self._levels and len(self._levels[-1]) <= 2 * len(level):
            level = np.union1d(self._levels.pop(), level)
        self._levels.append(level)


class NearlySeen:
    """Rows found by MinHash and banding (package rensa), each pair's similarity then estimated."""

    def __init__(self, similarity: float) -> None:
        """Take the Jaccard similarity from which a row counts as a duplicate."""
        from rensa import RMinHashDeduplicator

        self._seen: Any = RMinHashDeduplicator(similarity, _PERMUTATIONS, True, _BANDS, _SEED)
        self._added = 0

    def add(self, signature: Any) -> bool:
        """Add the signature of a row and tell whether it is new."""
        self._added += 1
        return bool(self._seen.add(str(self._added), signature))


def signature(text: str) -> Any:
    """Return the MinHash of a text's shingles of five words."""
    from rensa import RMinHash

    words = text.casefold().split()
    hashed: Any = RMinHash(_PERMUTATIONS, _SEED)
    hashed.update([" ".join(words[first : first + _SHINGLE]) for first in range(max(1, len(words) - _SHINGLE + 1))])
    return hashed
