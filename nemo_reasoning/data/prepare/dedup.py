"""Find rows that were there before, exactly or nearly, whatever their spacing."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_reasoning.reasoning.trace import visible

# Thai, Lao, Myanmar, Khmer, kana, Han, and Han of the supplementary planes.
_SIGNS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_SIGN, _SIGN_OR_WORD = re.compile(f"[{_SIGNS}]"), re.compile(f"[{_SIGNS}]|[^{_SIGNS}]+")
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
    """Return the MinHash of a text's shingles of five words; a sign of a script without blanks is a word."""
    from rensa import RMinHash

    said = words(text)
    hashed: Any = RMinHash(_PERMUTATIONS, _SEED)
    hashed.update([" ".join(said[first : first + _SHINGLE]) for first in range(max(1, len(said) - _SHINGLE + 1))])
    return hashed


def normalised(text: str) -> str:
    """Return a text without zero-width characters and with single blanks: what is equal then says the same."""
    return " ".join(visible(text).split())


def words(text: str) -> list[str]:
    """Return the words of a text for n-grams, casefolded; each sign of a script without blanks is one."""
    return _split_signs(visible(text).casefold().split())


def signs(text: str) -> int:
    """Return how many signs of scripts without blanks a text has."""
    return 0 if text.isascii() else len(_SIGN.findall(text))


def _split_signs(parts: Sequence[str]) -> list[str]:
    return [piece for part in parts for piece in ([part] if part.isascii() else _SIGN_OR_WORD.findall(part))]
