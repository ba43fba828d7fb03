"""One record per optimiser step, for every logger and for the display."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nemo_reasoning.training.loggers import JsonlLogger, Record

NEMO_NAMES = {"reduced_train_loss": "loss"}
BOOKKEEPING = frozenset({"step", "epoch", "global_step", "global_batch_size", "consumed_samples"})
VALIDATION_PREFIX = "val_"


class MetricSource(Callback, ABC):
    """A callback that measures something about every step."""

    @abstractmethod
    def step_metrics(self) -> dict[str, float]:
        """Return what was measured since the last record, ready for the loggers."""


class MetricsRecorder(Callback):
    """Gathers the metrics of each step and gives them to `trainer.loggers`.

    Steps count from 1: record n holds the loss before the n-th update, the learning rate of that
    update, and the validation loss after it. All values that NeMo or a callback logs with
    `LightningModule.log` are included; those named "val_..." once per validation.

    Attributes:
        latest: The last value of every metric, for the display.
    """

    def __init__(self, *, sources: Sequence[MetricSource], every_n_steps: int = 1) -> None:
        """Record every `every_n_steps`-th step; `sources` must come earlier in `trainer.callbacks`."""
        self.sources = sources
        self.every_n_steps = every_n_steps
        self.latest: dict[str, float] = {}
        self._recorded_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the records that a killed run wrote after the checkpoint this run starts from."""
        self._recorded_step = trainer.global_step
        for logger in trainer.loggers:
            if isinstance(logger, JsonlLogger):
                logger.resume_from(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the step, unless gradients still accumulate."""
        step = trainer.global_step
        if step == self._recorded_step or step % self.every_n_steps:
            return
        self._recorded_step = step
        metrics = _logged(trainer, validation=False)
        for source in self.sources:
            metrics |= source.step_metrics()
        self._write(trainer, metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the validation under the step it followed."""
        if not trainer.sanity_checking and (metrics := _logged(trainer, validation=True)):
            self._write(trainer, metrics)

    def _write(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        self.latest |= metrics
        for logger in trainer.loggers:
            logger.log_metrics(Record(metrics), step=trainer.global_step)


def _logged(trainer: Trainer, *, validation: bool) -> dict[str, float]:
    return {
        NEMO_NAMES.get(name, name): float(value)
        for name, value in trainer.callback_metrics.items()
        if name not in BOOKKEEPING and name.startswith(VALIDATION_PREFIX) == validation
    }
