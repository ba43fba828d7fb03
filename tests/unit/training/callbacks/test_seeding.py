"""Random numbers belong to a step, not to what ran before it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from megatron.core import parallel_state
from torch.utils.data import DataLoader

from nemo_reasoning.training.callbacks.seeding import StepSeed


def draw(*, seed: int, step: int) -> list[float]:
    """Return random numbers of a step."""
    torch.rand(step)  # whatever was drawn before
    trainer: Any = SimpleNamespace(global_step=step)
    StepSeed(seed).on_train_batch_start(trainer, None, None, 0)
    return torch.rand(4).tolist()


def test_a_step_draws_what_it_drew_before() -> None:
    first = [draw(seed=7, step=step) for step in range(4)]

    assert [draw(seed=7, step=step) for step in range(2, 4)] == first[2:]
    assert len({tuple(numbers) for numbers in first}) == 4


def test_seeds_differ() -> None:
    assert draw(seed=7, step=1) != draw(seed=8, step=1)
    assert draw(seed=7, step=8) != draw(seed=8, step=7)


def test_replicas_draw_different_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = draw(seed=7, step=1)
    monkeypatch.setattr(parallel_state, "get_data_parallel_rank", lambda: 1)

    assert draw(seed=7, step=1) != alone


class Dropping(pl.LightningModule):
    """Remembers what dropout leaves of ones, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.masks: list[list[float]] = []

    def training_step(self, batch: Any) -> torch.Tensor:
        self.masks.append(torch.nn.functional.dropout(torch.ones(64)).tolist())
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(*, steps: int, checkpoint: Path, resume: bool = False) -> list[list[float]]:
    """Train up to a step, from the checkpoint if `resume`, and leave one; returns what dropout left."""
    model = Dropping()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=[StepSeed(3)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(list(range(9))), ckpt_path=str(checkpoint) if resume else None)
    trainer.save_checkpoint(checkpoint)
    return model.masks


def test_an_interrupted_run_drops_out_what_the_whole_run_does(tmp_path: Path) -> None:
    whole = run(steps=5, checkpoint=tmp_path / "whole")
    first = run(steps=2, checkpoint=tmp_path / "part")
    rest = run(steps=5, checkpoint=tmp_path / "part", resume=True)

    assert first + rest == whole
    assert len({tuple(mask) for mask in whole}) == 5
