"""Make every optimizer step the same whether or not the run was interrupted."""

from typing import Self

import torch

from nemo_reasoning.training.callbacks.base import Callback, Loop, RunContext


class StepSeed(Callback):
    """Seeds torch's default generators from the run's seed and the step.

    LoRA's dropout draws from them. NeMo's checkpoints do not hold their state, so without this a
    resumed run would differ from an uninterrupted one. Replicas draw different numbers; the ranks of
    one replica draw the same.
    """

    position = 5

    def __init__(self, seed: int) -> None:
        """Take the seed of the run."""
        self.seed = seed

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Seed with `trainer.seed`."""
        return cls(context.run.settings.trainer.seed)

    def on_step_start(self, loop: Loop) -> None:
        """Seed the step that is about to run."""
        torch.manual_seed(hash((self.seed, loop.step, loop.data_rank)) & (2**63 - 1))


class RunLength(Callback):
    """Gives a restored learning rate schedule the length of this run, which may be longer than it was.

    Schedules keep the number of steps in their state, so a run continued with more steps would have the
    learning rate of the end of the shorter one.
    """

    position = 6

    def __init__(self, *, warmup_ratio: float) -> None:
        """Take the share of the steps in which the learning rate rises."""
        self._warmup_ratio, self._length = warmup_ratio, 0

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Warm up for `optim.warmup_ratio` of the steps."""
        return cls(warmup_ratio=context.run.settings.optim.warmup_ratio)

    def on_step_start(self, loop: Loop) -> None:
        """Set the length before the first step, as adapters are restored late, and whenever it changes."""
        if self._length != loop.max_steps:
            self._length = loop.max_steps
            loop.set_schedule(max_steps=self._length, warmup_steps=round(self._warmup_ratio * self._length))
