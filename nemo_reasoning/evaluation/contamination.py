"""Find the questions of a benchmark that a model was trained on."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nemo_reasoning.data.prepare.output import SPLITS
from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.benchmarks.question import Question

_WORDS = re.compile(r"\w+")
_GRAM = 13  # words in a row, as in the analysis of GPT-3 (arXiv 2005.14165, appendix C)


def contaminated(questions: Sequence[Question], turns: Iterable[str]) -> list[str]:
    """Return the ids of the questions that occur in training data, in their order.

    A question occurs if it shares 13 words in a row with a turn; a shorter one, if it is the whole turn.

    Args:
        questions: Of a benchmark.
        turns: What users say in the training data.
    """
    grams: dict[tuple[str, ...], set[str]] = {}
    for question in questions:
        for gram in _grams(question.text):
            grams.setdefault(gram, set()).add(question.id)
    found: set[str] = set()
    for turn in turns:
        for gram in _grams(turn):
            found |= grams.get(gram, set())
    return [question.id for question in questions if question.id in found]


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORDS.findall(text.casefold())
    if len(words) < _GRAM:
        yield tuple(words)
    for start in range(len(words) - _GRAM + 1):
        yield tuple(words[start : start + _GRAM])


def training_turns(run: Path) -> Iterator[str]:
    """Yield what users say in the training rows of a run.

    Raises:
        DataError: The run keeps no training rows.
    """
    path = run / "data" / SPLITS["train"]
    if not path.is_file():
        raise DataError(f"{path} does not exist, so contamination cannot be checked; run recipes/sft_lora.py again")
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield from (turn["content"] for turn in json.loads(line)["messages"] if turn["role"] == "user")
