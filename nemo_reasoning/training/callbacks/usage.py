"""The time that a run takes, kept up to date for starts that are killed."""

from typing import Self

from nemo_reasoning.training.callbacks.base import Callback, Loop, RunContext, StepRecord
from nemo_reasoning.training.usage import Usage


class UsageRecorder(Callback):
    """Records after every step what the run took until now: a killed start counts up to its last step."""

    position = 45

    def __init__(self, usage: Usage) -> None:
        """Take what is recorded."""
        self._usage = usage

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Every run has it."""
        return cls(context.usage)

    def on_step_end(self, loop: Loop, record: StepRecord) -> None:
        """Record."""
        if loop.first_rank:
            self._usage.record()
