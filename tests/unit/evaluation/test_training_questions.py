"""The paper of the training callback: questions, and a judge that reads answers as the report does."""

import json
from pathlib import Path

import pytest

from nemo_reasoning.config.evaluate import EvaluationCallbackSettings
from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.benchmarks.load import training_questions


def settings(questions: Path | None) -> EvaluationCallbackSettings:
    return EvaluationCallbackSettings(
        every_n_steps=2, questions=questions and str(questions), problems=3, max_new_tokens=9, patience=None
    )


def test_held_out_problems_are_asked_unless_there_are_others(tmp_path: Path) -> None:
    assert len(training_questions(settings(None), seed=0).questions) == 3
    rows = [{"question": "What is 6 times 7?", "answer": "42"}, {"question": "Capital of France?", "answer": "Paris"}]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = training_questions(settings(tmp_path), seed=0)
    assert list(asked.questions) == [row["question"] for row in rows]
    assert asked.judge(0, "on", "<think>\n41?\n</think>\n\nThe answer is 42.", True)
    assert not asked.judge(0, "on", "<think>\nThe answer is 42.", False)
    assert asked.judge(1, "off", "The answer is Paris.", True)
    assert not asked.judge(1, "off", "The answer is London.", True)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"holds no \*\.jsonl"):
        training_questions(settings(tmp_path / "none"), seed=0)
