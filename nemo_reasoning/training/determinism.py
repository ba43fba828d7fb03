"""Make every optimiser step draw the same random numbers, whether or not the run was interrupted."""

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
