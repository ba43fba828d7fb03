"""Find rows that were there before, exactly or nearly, whatever their spacing."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_reasoning.data.prepare.external import merged
from nemo_reasoning.reasoning.trace import visible

# Thai, Lao, Myanmar, Khmer, kana, Han, and Han of the supplementary planes.
_SIGNS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_AS_BLANK = bytes(ord(" ") if code < 0x80 and chr(code).isspace() else code for code in range(0x100))
_WIDE_BLANKS = "".join(sign for sign in map(chr, range(0x80, 0x3001)) if sign.isspace())
_SIGN, _SIGN_OR_WORD = re.compile(f"[{_SIGNS}]"), re.compile(f"[{_SIGNS}]|[^{_SIGNS}]+")
_PERMUTATIONS, _BANDS, _SHINGLE, _SEED = 128, 16, 5, 1


class Seen:
    """A set of 64-bit hashes in eight bytes each, for tens of millions of rows.

    Sorted arrays of doubling size, merged as in a log-structured tree; large ones lie in files.
    """

    def __init__(self, folder: Path) -> None:
        """Start empty; the folder tells on which disk the files are."""
        self._folder = folder
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
            level = merged(self._levels.pop(), level, self._folder)
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


def normalised(text: str) -> bytes:
    """Return the UTF-8 of a text without zero-width characters and with single blanks.

    What is equal then says the same. Case is kept: in mathematics and code x and X are two things.
    """
    if not text.isascii():
        text = visible(text)
        if any(sign in text for sign in _WIDE_BLANKS):
            text = text.translate(dict.fromkeys(map(ord, _WIDE_BLANKS), " "))
    said = np.frombuffer(text.strip().encode().translate(_AS_BLANK) + b" ", np.uint8)
    blank = said == ord(" ")
    kept: bytes = said[:-1][~(blank[:-1] & blank[1:])].tobytes()  # in a third of the time of split and join
    return kept


def question_key(text: str) -> bytes:
    """Return what decides the split of a question: without blanks, and without differences of case and of form.

    Some questions that are not the same share a key, which costs nothing: they stand in one split.
    """
    return normalised(unicodedata.normalize("NFKC", text).casefold()).replace(b" ", b"")


def words(text: str) -> list[str]:
    """Return the words of a text for n-grams, casefolded; each sign of a script without blanks is one."""
    return _split_signs(visible(text).casefold().split())


def signs(text: str) -> int:
    """Return how many signs of scripts without blanks a text has."""
    return 0 if text.isascii() else len(_SIGN.findall(text))


def _split_signs(parts: Sequence[str]) -> list[str]:
    return [piece for part in parts for piece in ([part] if part.isascii() else _SIGN_OR_WORD.findall(part))]
