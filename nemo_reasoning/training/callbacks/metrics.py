"""One record per optimizer step, for every logger."""

from collections.abc import Sequence
from typing import Self

from nemo_reasoning.training.callbacks.base import Callback, Logger, Loop, RunContext, StepRecord, Validation

VALIDATION_LOSS = "val_loss"


class MetricsRecorder(Callback):
    """Gives the record of each step, and every validation, to the loggers.

    Steps count from 1: record n holds the loss before the n-th update, the learning rate of that
    update, and the validation loss after it.
    """

    position = 40

    def __init__(self, loggers: Sequence[Logger]) -> None:
        """Take where the records go."""
        self._loggers = loggers

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Record to the run's loggers."""
        return cls(context.loggers)

    def on_setup(self, loop: Loop) -> None:
        """Begin, before a model is built."""
        if loop.first_rank:
            for logger in self._loggers:
                logger.begin()

    def on_start(self, loop: Loop) -> None:
        """Drop the records that a killed run wrote after the checkpoint this run starts from."""
        if loop.first_rank:
            for logger in self._loggers:
                logger.resume_from(loop.step)

    def on_step_end(self, loop: Loop, record: StepRecord) -> None:
        """Record the step; callbacks that measure have added to it by now."""
        self._log(loop, record.step, record.metrics)

    def on_validation_end(self, loop: Loop, validation: Validation) -> None:
        """Record the validation under the step it followed."""
        loss = float("nan") if validation.loss is None else validation.loss
        self._log(loop, validation.step, {VALIDATION_LOSS: loss})

    def on_close(self, loop: Loop) -> None:
        """Write what is pending."""
        for logger in self._loggers:
            logger.close()

    def _log(self, loop: Loop, step: int, metrics: dict[str, float]) -> None:
        if loop.first_rank:
            for logger in self._loggers:
                logger.log(step, metrics)
