"""Find rows whose question repeats a problem of an evaluation set."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nemo_reasoning.data.schemas.dialogue import Row
from nemo_reasoning.errors import DataError

_WORD = re.compile(r"\w+")
_PROBLEM_KEYS = ("problem", "question", "prompt", "input")


class Overlap:
    """Word n-grams of evaluation problems; of a shorter problem, all its words.

    A question overlaps if it contains one of them, the n-gram rule of arXiv 2005.14165, appendix C.
    """

    def __init__(self, problems: Iterator[str] | Sequence[str], *, words: int) -> None:
        """Take the problems' texts and n."""
        self._words = words
        self._grams: set[str] = set()
        self._short: set[str] = set()
        for problem in problems:
            said = _words(problem)
            if 0 < len(said) < words:
                self._short.add(" ".join(said))
            self._grams.update(self._of(said))

    @classmethod
    def read(cls, paths: Sequence[str], *, words: int) -> "Overlap":
        """Read problems from JSON Lines: columns `problem`, `question`, `prompt` or `input`, whichever is text.

        Raises:
            DataError: A line holds no problem.
        """
        return cls((problem for path in paths for problem in _problems(Path(path))), words=words)

    def touches(self, row: Row) -> bool:
        """Tell whether one of the user's turns overlaps with a problem."""
        for message in row.messages:
            if message.role == "user":
                said = _words(message.content)
                if " ".join(said) in self._short or not self._grams.isdisjoint(self._of(said)):
                    return True
        return False

    def _of(self, said: list[str]) -> Iterator[str]:
        return (" ".join(said[first : first + self._words]) for first in range(len(said) - self._words + 1))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _problems(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _problem(json.loads(line), f"{path}:{number}")


def _problem(value: Any, place: str) -> str:
    texts = [value[key] for key in _PROBLEM_KEYS if isinstance(value.get(key), str)] if isinstance(value, dict) else []
    if not texts:
        raise DataError(f"{place}: no text in any of the columns {', '.join(_PROBLEM_KEYS)}")
    return str(texts[0])
