"""One record per step, whatever happens to the run."""

import json
from pathlib import Path

import pytest
from tiny_run import At, checkpointing, fit

from nemo_reasoning.training.checkpoints import METRICS_FILE
from nemo_reasoning.training.loggers import JsonlLogger, read_metrics


def run(folder: Path, *extra: At, max_steps: int = 6) -> list[float]:
    """Train with a recorder, or go on; return the losses the model saw."""
    return fit(folder, extra, max_steps=max_steps, loggers=[JsonlLogger(folder / METRICS_FILE)]).losses


def column(folder: Path, name: str) -> dict[int, float]:
    """Return a metric by step."""
    return {record["step"]: record[name] for record in read_metrics(folder / METRICS_FILE) if name in record}


def test_each_step_has_the_loss_before_its_update_and_validations_follow_it(tmp_path: Path) -> None:
    losses = run(tmp_path)

    assert column(tmp_path, "loss") == pytest.approx(dict(enumerate(losses, start=1)))
    assert list(column(tmp_path, "val_loss")) == [2, 4, 6]
    assert list(column(tmp_path, "lr").values()) == pytest.approx([0.05] * 6)


def test_a_validation_has_a_line_of_its_own(tmp_path: Path) -> None:
    run(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]

    assert [set(line) for line in lines[:3]] == [
        {"step", "loss", "lr"},
        {"step", "loss", "lr"},
        {"step", "val_loss"},
    ]
    assert len(lines) == 6 + 3


def test_a_killed_and_resumed_run_leaves_the_file_of_an_uninterrupted_one(tmp_path: Path) -> None:
    def crash() -> None:
        raise RuntimeError("killed")

    run(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "broken", At(5, crash))
    assert list(column(tmp_path / "broken", "loss")) == [1, 2, 3, 4, 5]
    run(tmp_path / "broken")

    whole, broken = ((tmp_path / name / METRICS_FILE).read_text() for name in ("whole", "broken"))
    assert broken.count('"loss"') == whole.count('"loss"') == 6
    for name in ("loss", "lr", "val_loss"):
        assert column(tmp_path / "broken", name) == column(tmp_path / "whole", name)


def test_a_step_is_recorded_before_its_checkpoint_is_saved(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    run(tmp_path, At(2, lambda: seen.append(list(column(tmp_path, "loss"))), hook="on_save"), max_steps=2)

    assert seen == [[1, 2]]


def test_the_positions_are_those_that_are_documented() -> None:
    from nemo_reasoning.training.callbacks import evaluation, generation, memory, metrics, progress, seeding, throughput

    order = [
        *(memory.MemoryFraction, seeding.StepSeed, seeding.RunLength, memory.MemoryMonitor),
        *(throughput.ThroughputMonitor, metrics.MetricsRecorder, progress.ProgressDisplay),
        *(type(checkpointing(Path())), generation.GenerationSamples, evaluation.InTrainingEvaluation),
    ]
    positions = [kind.position for kind in order]
    assert positions == sorted(set(positions))
