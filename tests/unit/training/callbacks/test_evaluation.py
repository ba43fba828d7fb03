"""Questions while training, and stopping when the answers get no better."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_run import fit

from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.training.callbacks.base import Logger, Questions
from nemo_reasoning.training.callbacks.evaluation import EVALUATION_FILE, InTrainingEvaluation
from nemo_reasoning.training.callbacks.generation import SamplePrompt
from nemo_reasoning.training.loggers import JsonlLogger, read_metrics

QUESTIONS = ["What?", "Why?"]


class Judge:
    """Gives marks by the number of the evaluation: so many of the two answers with thinking on are right."""

    def __init__(self, marks: list[int]) -> None:
        self.marks, self.seen = marks, []  # type: ignore[var-annotated]

    def __call__(self, number: int, mode: Mode, text: str, finished: bool) -> bool:
        self.seen.append((number, mode, text, finished))
        evaluation = (len(self.seen) - 1) // 4
        return mode == "on" and number < self.marks[evaluation]


def asking(
    folder: Path,
    judge: Judge,
    *,
    patience: int | None = None,
    shown: list[str] | None = None,
    loggers: Sequence[Logger] = (),
) -> InTrainingEvaluation:
    return InTrainingEvaluation(
        asked=Questions(questions=QUESTIONS, judge=judge),
        loggers=loggers,
        prompts=[SamplePrompt(mode, text, [1, 2]) for mode in ("on", "off") for text in QUESTIONS],
        eos_ids=[],
        decode=lambda ids: " ".join(map(str, ids)),
        max_new_tokens=3,
        every_n_steps=2,
        patience=patience,
        path=folder / EVALUATION_FILE,
        show=(shown if shown is not None else []).append,
    )


def steps(folder: Path) -> list[tuple[int, float, float]]:
    lines = map(json.loads, (folder / EVALUATION_FILE).read_text().splitlines())
    return [(line["step"], line["accuracy_on"], line["accuracy_off"]) for line in lines]


def test_both_modes_are_asked_every_n_steps_and_at_the_end(tmp_path: Path) -> None:
    judge, shown, logger = Judge([1, 2, 0]), [], JsonlLogger(tmp_path / "metrics.jsonl")  # type: ignore[var-annotated]
    fit(tmp_path, [asking(tmp_path, judge, shown=shown, loggers=[logger])], max_steps=5, loggers=[logger])
    assert steps(tmp_path) == [(2, 0.5, 0.0), (4, 1.0, 0.0), (5, 0.0, 0.0)]
    assert [(number, mode) for number, mode, _, _ in judge.seen[:4]] == [(0, "on"), (1, "on"), (0, "off"), (1, "off")]
    assert all(len(text.split()) == 3 and not finished for _, _, text, finished in judge.seen)
    assert shown[0].startswith("step 2: 50% of 2 questions right with thinking on, 0% off")
    records = [record for record in read_metrics(tmp_path / "metrics.jsonl") if "eval_accuracy_on" in record]
    assert [(record["step"], record["eval_accuracy_on"]) for record in records] == [(2, 0.5), (4, 1.0), (5, 0.0)]


def test_training_does_not_notice(tmp_path: Path) -> None:
    watched = fit(tmp_path / "watched", [asking(tmp_path, Judge([0] * 9))], max_steps=6)
    assert watched.losses == fit(tmp_path / "alone", [], max_steps=6).losses


@pytest.mark.parametrize(
    ("marks", "patience", "last"),
    [([1, 1, 1, 1, 1], 2, 6), ([1, 2, 1, 1, 1], 2, 8), ([0, 1, 2, 2, 2], None, 10), ([1, 0, 2, 0, 0], 2, 10)],
)
def test_training_stops_when_nothing_gets_better(
    tmp_path: Path, marks: list[int], patience: int | None, last: int
) -> None:
    shown: list[str] = []
    fit(tmp_path, [asking(tmp_path, Judge(marks), patience=patience, shown=shown)], max_steps=10)
    assert steps(tmp_path)[-1][0] == last
    assert any("training stops here" in line for line in shown) == (patience is not None)


def test_a_resumed_run_remembers_and_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    fit(tmp_path, [asking(tmp_path, Judge([2, 1]))], max_steps=4)
    with (tmp_path / EVALUATION_FILE).open("a") as file:
        file.write(json.dumps({"step": 6, "accuracy_on": 1.0, "accuracy_off": 1.0}) + "\n")
    fit(tmp_path, [asking(tmp_path, Judge([1] * 9), patience=2)], max_steps=12)
    assert [step for step, _, _ in steps(tmp_path)] == [2, 4, 6]


def test_a_run_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    fit(tmp_path, [asking(tmp_path, Judge([1] * 9), patience=1)], max_steps=10)
    model = fit(tmp_path, [asking(tmp_path, Judge([]), patience=1)], max_steps=10)
    assert model.losses == []
    assert [step for step, _, _ in steps(tmp_path)] == [2, 4]
