"""recipes/self_improve.py as a user runs it, on a model that knows one answer by heart."""

import json
from pathlib import Path

import pytest
from launch import run, tiny_overrides
from taught import random_model, teach

__all__ = ["random_model"]  # a fixture

QUESTIONS = [f"What is 2 times 21? {number}" for number in range(40)]


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of questions that have the answer the model gives to all, but for every fourth."""
    path = tmp_path_factory.mktemp("problems") / "rows.jsonl"
    rows = ({"question": text, "answer": 42 if number % 4 else 41} for number, text in enumerate(QUESTIONS))
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_round_learns_from_what_was_right_and_is_not_repeated(
    random_model: Path,
    problems: Path,
    tmp_path: Path,  # noqa: F811
) -> None:
    model, start, out = teach(random_model, tmp_path / "hf", QUESTIONS), tmp_path / "start", tmp_path / "rounds"
    short = ("trainer.max_steps=1", "optim.lr=1e-7", "peft.dropout=0", "trainer.eval_interval=1")
    run("sft_lora", *tiny_overrides(model, start, *short))
    rounds = [
        *tiny_overrides(model, out, *short, f"checkpoint={start}", f"problems.source={problems}", "samples=2"),
        *("problems.layout=jsonl", "problems.count=24", "problems.held_out=4", "data.validation_share=0.3"),
        *("max_new_tokens=120", "rounds=1", "drop_longest=0", "sampling.temperature=0.2"),
    ]
    printed = run("self_improve", *rounds)
    counts = json.loads((out / "rounds.json").read_text())["rounds"][1]["answers"]
    rows = [json.loads(line) for line in (out / "round-1" / "rows.jsonl").read_text().splitlines()]

    assert counts["sampled"] == 48
    assert 0 < counts["kept"] == len(rows) < counts["sampled"]
    assert all(row["expected_answer"] == "42" for row in rows)
    assert f"checkpoint: {out / 'round-1' / 'run'}" in printed
    report = json.loads((out / "rounds.json").read_text())["rounds"]
    assert [one["round"] for one in report] == [0, 1]
    assert report[0]["on"]["n"] == 4
    assert (out / "report.html").is_file()

    log = (out / "round-1" / "samples.jsonl").read_bytes()
    assert "all 1 steps are done" in run("self_improve", *rounds)
    assert (out / "round-1" / "samples.jsonl").read_bytes() == log
    assert "problems.count" in run("self_improve", *rounds, "problems.count=1000", succeeds=False)
    refused = run("self_improve", *rounds, "model.template=llama3", succeeds=False)
    assert "model.template=llama3, but" in refused
    assert "Traceback" not in refused


def test_what_cannot_run_is_refused_together() -> None:
    told = run(
        *("self_improve", "checkpoint=nowhere", "rounds=0", "trainer.devices=2", "restart=true", "drop_longest=1"),
        *("problems.layout=gsm8k", "sampling.temperature=0", "loss=dpo", "problems.count=90"),
        succeeds=False,
    )
    for named in (
        "checkpoint=nowhere is no run",
        "rounds=0",
        "trainer.devices=2",
        "restart=True",
        "drop_longest",
        "gsm8k",
    ):
        assert named in told, named
    assert "temperature 0" in told
    assert "problems.count=90 with data.validation_share=0.05: fewer than 5" in told
