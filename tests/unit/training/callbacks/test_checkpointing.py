"""SIGTERM in a real run."""

import os
import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from tiny_run import At, TinyModel, fit

from nemo_reasoning.errors import ConfigError
from nemo_reasoning.training.callbacks.checkpointing import EXIT_CODE, SigtermSave


def terminate() -> None:
    """Send SIGTERM to this process."""
    os.kill(os.getpid(), signal.SIGTERM)


def interrupted(folder: Path, step: int, hook: str) -> list[str]:
    """Train five steps, with SIGTERM in `hook` of `step`; return what the user is told."""
    shown: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        fit(folder, [SigtermSave(show=shown.append), At(step, terminate, hook=hook)], max_steps=5)
    assert stopped.value.code == EXIT_CODE == 143
    assert signal.getsignal(signal.SIGTERM) == before
    return shown


@pytest.mark.parametrize(
    ("step", "hook", "saved"),
    [
        (2, "on_train_batch_start", 3),  # within the third step, which is finished first
        (3, "on_train_batch_end", 3),
        (2, "on_validation_start", 2),
    ],
)
def test_the_step_is_finished_and_saved_with_its_optimizer(tmp_path: Path, step: int, hook: str, saved: int) -> None:
    (told,) = interrupted(tmp_path, step, hook)
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)

    assert checkpoint["global_step"] == saved
    assert len(checkpoint["optimizer_states"][0]["state"]) == 3
    assert f"step {saved}" in told


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    interrupted(tmp_path, 3, "on_train_batch_end")
    resumed = fit(tmp_path, [], max_steps=5, resume=str(tmp_path / "checkpoints" / "last.ckpt"))
    whole = fit(tmp_path / "whole", [], max_steps=5)

    assert resumed.losses == whole.losses[3:]


def test_a_signal_in_the_last_step_lets_training_finish(tmp_path: Path) -> None:
    shown: list[str] = []
    model = fit(
        tmp_path,
        [SigtermSave(show=shown.append), At(4, terminate, hook="on_train_batch_start")],
        max_steps=5,
    )

    assert len(model.losses) == 5
    assert shown == []


def test_a_run_that_keeps_no_last_checkpoint_is_refused() -> None:
    trainer = Trainer(logger=False, accelerator="cpu")

    with pytest.raises(ConfigError, match="save_last"):
        SigtermSave(show=print).on_train_start(trainer, TinyModel())
