"""Find texts that repeat a problem of an evaluation set, by the n-gram rule of arXiv 2005.14165, appendix C."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nemo_reasoning.data.prepare.dedup import words
from nemo_reasoning.data.schemas.dialogue import Row
from nemo_reasoning.errors import DataError

GRAM = 13  # words in a row
_FEWEST = 4  # words of a problem that is looked for inside longer texts; a shorter one has to be the whole text
_NO_WORD = re.compile(r"\W+")
_PROBLEM_KEYS = ("problem", "question", "prompt", "input")


class Overlap:
    """Word n-grams of problems; of a shorter problem, all its words.

    A text overlaps with a problem if it contains one of them. Words are what `dedup.words` says, without signs.
    """

    def __init__(self, problems: Iterable[tuple[str, str]], *, length: int = GRAM) -> None:
        """Take (name, text) of each problem, and how many words in a row make an overlap."""
        self._length = length
        self._grams: dict[tuple[str, ...], set[str]] = {}
        for name, text in problems:
            said = _words(text)
            if said:
                for gram in _ngrams(said, min(length, len(said))):
                    self._grams.setdefault(gram, set()).add(name)
        self._lengths = sorted({len(gram) for gram in self._grams})

    @classmethod
    def read(cls, paths: Sequence[str], *, length: int) -> "Overlap":
        """Read problems from JSON Lines: columns `problem`, `question`, `prompt` or `input`, whichever is text.

        Raises:
            DataError: A line holds no problem.
        """
        return cls(((text, text) for path in paths for text in _problems(Path(path))), length=length)

    def found_in(self, text: str) -> set[str]:
        """Return the names of the problems that a text overlaps with."""
        said, names = _words(text), set[str]()
        for length in self._lengths:
            if length >= _FEWEST or length == len(said):
                for gram in _ngrams(said, length):
                    names |= self._grams.get(gram, set())
        return names

    def touches(self, row: Row) -> bool:
        """Tell whether one of the user's turns overlaps with a problem."""
        return any(self.found_in(turn.content) for turn in row.messages if turn.role == "user")


def _ngrams(said: list[str], length: int) -> Iterator[tuple[str, ...]]:
    return (tuple(said[first : first + length]) for first in range(len(said) - length + 1))


def _words(text: str) -> list[str]:
    return words(_NO_WORD.sub(" ", text))


def _problems(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _problem(_decoded(line, f"{path}:{number}"), f"{path}:{number}")


def _decoded(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON ({error}); overlap_files are JSON Lines of problems") from error


def _problem(value: Any, place: str) -> str:
    texts = [value[key] for key in _PROBLEM_KEYS if isinstance(value.get(key), str)] if isinstance(value, dict) else []
    if not texts:
        raise DataError(f"{place}: no text in any of the columns {', '.join(_PROBLEM_KEYS)}")
    return str(texts[0])
