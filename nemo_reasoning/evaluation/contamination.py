"""Find the questions of a benchmark that a model was trained on."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nemo_reasoning.data.prepare.folder import SPLITS
from nemo_reasoning.data.prepare.overlap import Overlap
from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.benchmarks.question import Question


def contaminated(questions: Sequence[Question], turns: Iterable[str]) -> list[str]:
    """Return the ids of the questions that occur in training data, in their order.

    A question occurs if it shares 13 words in a row with a turn; a shorter one, if the turn has all its words in a
    row, and one of fewer than four, if it is the whole turn.

    Args:
        questions: Of a benchmark.
        turns: What users say in the training data.
    """
    overlap = Overlap((question.id, question.text) for question in questions)
    found = set[str]().union(*(overlap.found_in(turn) for turn in turns))
    return [question.id for question in questions if question.id in found]


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
