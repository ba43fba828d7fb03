"""Make every optimiser step the same whether or not the run was interrupted."""

from typing import Any

import lightning.pytorch as pl
import torch
from megatron.core import parallel_state


class StepSeed(pl.Callback):
    """Seeds torch's default generators from the run's seed and the step.

    LoRA's dropout draws from them. NeMo's checkpoints do not hold their state, so without this a
    resumed run would differ from an uninterrupted one. Replicas draw different numbers; the ranks of
    one replica draw the same.
    """

    def __init__(self, seed: int) -> None:
        """Take the seed of the run."""
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Seed the step that is about to run."""
        generator_seed = (self.seed, trainer.global_step, parallel_state.get_data_parallel_rank())
        torch.manual_seed(hash(generator_seed) & (2**63 - 1))


class RunLength(pl.Callback):
    """Gives a restored learning rate schedule the length of this run, which may be longer than it was.

    NeMo's schedules keep the number of steps in their state, so a run continued with more steps would
    have the learning rate of the end of the shorter one.
    """

    def __init__(self, *, max_steps: int, warmup_steps: int) -> None:
        """Take the steps of the run and of its warm-up."""
        self.max_steps, self.warmup_steps = max_steps, warmup_steps
        self._done = False

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Set the length before the first step: adapters are restored after `on_train_start`."""
        if self._done:
            return
        self._done = True
        for configured in trainer.lr_scheduler_configs:
            schedule: Any = configured.scheduler
            schedule.max_steps, schedule.warmup_steps = self.max_steps, self.warmup_steps
            schedule.decay_steps = self.max_steps - self.warmup_steps - schedule.constant_steps
            schedule.last_epoch -= 1
            schedule.step()
