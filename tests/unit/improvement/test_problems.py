"""Rounds ask other problems each time, and never those that are measured."""

import json
from pathlib import Path

import pytest

from nemo_reasoning.config.evaluate import BenchmarkLayout
from nemo_reasoning.config.self_improve import ProblemSettings
from nemo_reasoning.errors import ConfigError, DataError
from nemo_reasoning.improvement.problems import load_problems


def settings(source: Path | None = None, **changes: object) -> ProblemSettings:
    layout = BenchmarkLayout.builtin if source is None else BenchmarkLayout.jsonl
    facts = {
        "layout": layout,
        "source": None if source is None else str(source),
        "revision": None,
        "files": ["*.jsonl"],
    }
    return ProblemSettings(**{**facts, "prompt": "{question}", "count": 20, "held_out": 12, **changes})  # type: ignore[arg-type]


def own(path: Path, count: int) -> Path:
    lines = [json.dumps({"question": f"{number} + 1?", "answer": number + 1}) for number in range(count)]
    path.write_text("\n".join([*lines, lines[0]]), encoding="utf-8")
    return path


@pytest.mark.parametrize("source", [None, "file", "folder"])
def test_what_is_asked_and_what_is_measured(source: str | None, tmp_path: Path) -> None:
    path = None if source is None else own(tmp_path / "rows.jsonl", 120)
    problems = load_problems(settings(tmp_path if source == "folder" else path), seed=3)
    rounds = [[question.text for question in problems.of_round(number)] for number in (1, 2)]

    assert len(problems.held_out) == 12
    assert len({*rounds[0], *rounds[1]}) == 40
    assert {question.text for question in problems.held_out}.isdisjoint(question.text for question in problems.asked)
    again = load_problems(settings(tmp_path if source == "folder" else path), seed=3)
    assert again.identity == problems.identity
    assert [question.text for question in again.of_round(1)] == rounds[0]
    other = load_problems(settings(tmp_path if source == "folder" else path), seed=4)
    assert [question.text for question in other.of_round(1)] != rounds[0]


def test_when_all_were_asked_the_first_come_again(tmp_path: Path) -> None:
    problems = load_problems(settings(own(tmp_path / "rows.jsonl", 40), held_out=2), seed=0)
    asked = len(problems.asked)
    second = [question.text for question in problems.of_round(2)]
    assert second == [problems.asked[place % asked].text for place in range(20, 40)]


def test_adding_questions_moves_none_between_the_parts(tmp_path: Path) -> None:
    few, more = (
        load_problems(settings(own(tmp_path / f"{n}.jsonl", n), count=5, held_out=5), seed=0) for n in (60, 90)
    )
    assert not {question.text for question in few.asked} & {question.text for question in more.held_out}


def test_too_few_are_refused_by_number(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"problems.count=200, but there are \d+ such"):
        load_problems(settings(own(tmp_path / "rows.jsonl", 60), count=200), seed=0)
    with pytest.raises((DataError, ConfigError), match="held-out problems asked for"):
        load_problems(settings(held_out=100_000), seed=0)


def test_how_they_are_asked(tmp_path: Path) -> None:
    problems = load_problems(settings(own(tmp_path / "r.jsonl", 120), prompt="{question} Think."), seed=0)
    requests = problems.requests(problems.held_out[:2], modes=("on", "off"), budget=9, samples=2)
    assert [(one.mode, one.budget, one.index) for one in requests] == [
        *[("on", 9, 0), ("on", 9, 1)] * 2,
        *[("off", None, 0), ("off", None, 1)] * 2,
    ]
    assert requests[0].prompt == f"{problems.held_out[0].text} Think."
