"""Questions that occur in the training data are found."""

import json
from pathlib import Path

import pytest

from nemo_reasoning.data.builtin import held_out, training_rows
from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.benchmarks.load import as_question
from nemo_reasoning.evaluation.benchmarks.question import Question
from nemo_reasoning.evaluation.contamination import contaminated, training_turns

LONG = "A train leaves the station at nine and travels north at sixty miles an hour for three hours."


def question(text: str) -> Question:
    return Question(id=text, text=text, choices=(), answer="1", kind="number", subject="s")


@pytest.mark.parametrize(
    ("asked", "turn", "found"),
    [
        ("What is 2 + 2?", "what is 2+2", True),
        ("What is 2 + 2?", "Tell me: what is 2 + 2?", True),
        ("What is 2 + 2?", "Tell me: what is 2 + 3 + 2?", False),
        (LONG, f"Solve this. {LONG.upper()} How far is it?", True),
        (LONG, LONG.replace("nine", "ten").replace("three", "four"), False),
        (f"{LONG} How far?", LONG, True),
    ],
)
def test_thirteen_words_in_a_row_or_all_words_of_a_short_question(asked: str, turn: str, found: bool) -> None:
    assert contaminated([question(asked), question("Who?")], [turn]) == ([asked] if found else [])


def test_no_held_out_problem_is_trained_on() -> None:
    questions = [as_question(problem) for problem in held_out(count=60, seed=0)]
    trained = [row["input"][0]["content"] for row in training_rows(count=3000, seed=0, off_share=0.3)]
    assert contaminated(questions, trained) == []
    assert contaminated(questions, [*trained, questions[3].text]) == [questions[3].id]


def test_turns_come_from_the_rows_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"training\.jsonl does not exist"):
        list(training_turns(tmp_path))
    rows = [{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": text}]} for text in "ab"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "training.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(training_turns(tmp_path)) == ["a", "b"]
