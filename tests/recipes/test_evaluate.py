"""recipes/evaluate.py as a user runs it, on a tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest
from launch import records, run, tiny_overrides

MMLU = Path(__file__).parents[1] / "data" / "benchmarks" / "mmlu"
_SHORT = ["protocol.max_tokens=8", "limit=4", "benchmark=[mmlu]", f"benchmark.mmlu.source={MMLU}"]


@pytest.mark.slow
def test_a_trained_run_is_measured_beside_its_base_and_goes_on_after_a_stop(shared_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    quiz = ["callbacks=eval", "callbacks.eval.problems=2", "callbacks.eval.max_new_tokens=3"]
    printed = run(
        "sft_lora", *tiny_overrides(shared_llama, out, "trainer.max_steps=2", "trainer.eval_interval=2", *quiz)
    )
    assert "step 2: 0% of 2 questions right with thinking on" in printed
    assert set(records(out, "eval_accuracy_off")) == {2}
    arguments = [f"checkpoint={out}", *_SHORT]
    printed = run("evaluate", *arguments)
    folder = out / "benchmarks"
    scores = json.loads((folder / "report.json").read_text())["benchmarks"]["mmlu"]["scores"]
    assert [(score["model"], score["mode"], score["n"]) for score in scores] == [
        ("base", "on", 4), ("base", "off", 4), ("trained", "on", 4), ("trained", "off", 4)
    ]  # fmt: skip
    assert f"report: {folder / 'report.html'}" in printed
    for log in (folder / "base" / "mmlu.jsonl", folder / "trained" / "mmlu.jsonl"):
        lines = log.read_text().splitlines(keepends=True)
        log.write_text("".join(lines[:3]))
    before = (folder / "report.json").read_bytes()
    run("evaluate", *arguments)
    after = json.loads((folder / "report.json").read_text())
    assert _timeless(after) == _timeless(json.loads(before))
    exported = [f"checkpoint={out / 'export' / 'hf_peft'}", f"output_dir={tmp_path / 'exported'}", *_SHORT]
    run("evaluate", *exported)
    other = json.loads((tmp_path / "exported" / "report.json").read_text())["benchmarks"]["mmlu"]["scores"]
    assert _timeless(other) == _timeless(scores)
    assert "mmlu" in run("evaluate", f"compare=[{folder},{folder}]")


def _timeless(value: Any) -> Any:
    """Return a report without what the clock says."""
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _timeless(item) for key, item in value.items() if key != "mean_seconds"}


def test_a_model_of_ones_own_is_measured(tiny_llama: Path, tmp_path: Path) -> None:
    run("evaluate", f"checkpoint={tiny_llama}", "template=chatml", f"output_dir={tmp_path / 'out'}", *_SHORT)
    assert (tmp_path / "out" / "report.html").is_file()


def test_mistakes_are_one_line() -> None:
    assert "give either checkpoint=" in run("evaluate", succeeds=False)
    assert "reasoning" in run("evaluate", "checkpoint=x", "reasoning=[maybe]", succeeds=False)
