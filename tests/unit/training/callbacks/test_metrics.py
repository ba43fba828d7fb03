"""One record per step, whatever happens to the run."""

import json
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_run import At, fit

from nemo_reasoning.training.callbacks.checkpointing import SigtermSave
from nemo_reasoning.training.callbacks.memory import MemoryMonitor
from nemo_reasoning.training.callbacks.metrics import MetricsRecorder
from nemo_reasoning.training.callbacks.order import attach
from nemo_reasoning.training.loggers import METRICS_FILE, JsonlLogger, read_metrics


def run(folder: Path, *extra: At, max_steps: int = 6, every: int = 1, resume: str | None = None) -> list[float]:
    """Train with a recorder; return the losses the model saw."""
    recorder = MetricsRecorder(sources=[], every_n_steps=every)
    logger = JsonlLogger(folder / METRICS_FILE)
    return fit(folder, [recorder, *extra], max_steps=max_steps, loggers=[logger], resume=resume).losses


def column(folder: Path, name: str) -> dict[int, float]:
    """Return a metric by step."""
    return {record["step"]: record[name] for record in read_metrics(folder / METRICS_FILE) if name in record}


def test_each_step_has_the_loss_before_its_update_and_validations_follow_it(tmp_path: Path) -> None:
    losses = run(tmp_path)

    assert column(tmp_path, "loss") == pytest.approx(dict(enumerate(losses, start=1)))
    assert list(column(tmp_path, "val_loss")) == [2, 4, 6]
    assert list(column(tmp_path, "lr").values()) == pytest.approx([0.05] * 6)


def test_records_hold_no_bookkeeping_and_no_stale_validation(tmp_path: Path) -> None:
    run(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]

    assert [set(line) for line in lines[:3]] == [
        {"step", "loss", "lr"},
        {"step", "loss", "lr"},
        {"step", "val_loss"},
    ]
    assert len(lines) == 6 + 3


def test_every_n_steps_thins_out_training_records(tmp_path: Path) -> None:
    run(tmp_path, every=3)

    assert list(column(tmp_path, "loss")) == [3, 6]


def test_a_killed_and_resumed_run_leaves_the_file_of_an_uninterrupted_one(tmp_path: Path) -> None:
    def crash() -> None:
        raise RuntimeError("killed")

    run(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "broken", At(5, crash))
    assert list(column(tmp_path / "broken", "loss")) == [1, 2, 3, 4, 5]
    run(tmp_path / "broken", resume=str(tmp_path / "broken" / "checkpoints" / "last.ckpt"))

    whole, broken = ((tmp_path / name / METRICS_FILE).read_text() for name in ("whole", "broken"))
    assert broken.count('"loss"') == whole.count('"loss"') == 6
    for name in ("loss", "lr", "val_loss"):
        assert column(tmp_path / "broken", name) == pytest.approx(column(tmp_path / "whole", name))


def test_a_step_is_recorded_before_its_checkpoint_is_saved(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    note = At(2, lambda: seen.append(list(column(tmp_path, "loss"))), hook="on_save_checkpoint")
    run(tmp_path, note, max_steps=2)

    assert seen[0] == [1, 2]


def test_attach_puts_measurements_first_and_sigterm_last() -> None:
    trainer = Trainer(logger=False, accelerator="cpu", callbacks=[ModelCheckpoint()])
    attach(trainer, [SigtermSave(show=print), MemoryMonitor(), MetricsRecorder(sources=[])])
    kinds = [type(callback) for callback in trainer.callbacks]  # type: ignore[attr-defined]

    assert kinds[:2] == [MemoryMonitor, MetricsRecorder]
    assert kinds.index(ModelCheckpoint) < kinds.index(SigtermSave) == len(kinds) - 1
