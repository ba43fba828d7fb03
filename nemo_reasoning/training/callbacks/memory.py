"""Memory per phase and step."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from nemo_reasoning.training.callbacks.metrics import MetricSource
from nemo_reasoning.training.memory_stats import MemoryUse, Phase


class MemoryMonitor(MetricSource):
    """Divides a run into phases and reports the memory of each.

    A step's memory goes to its record under plain names (rss_bytes, vram_peak_bytes, ...). Phases
    between steps (fit_start, validation, checkpoint) go to the next record with the phase before the
    name, such as "validation/vram_peak_bytes". `peaks` keeps the highest use of each phase.
    """

    def __init__(self) -> None:
        """Measure nothing until `setup`."""
        self.peaks: dict[str, MemoryUse] = {}
        self._phase: Phase | None = None
        self._pending: dict[str, float] = {}

    def step_metrics(self) -> dict[str, float]:
        """Return the memory of the step and of the phases since the record before."""
        metrics, self._pending = self._pending, {}
        return metrics

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin with the building of model and optimiser."""
        self._enter("fit_start")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin a step."""
        self._enter("step")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End a step."""
        self._leave()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a validation."""
        self._enter("validation")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a validation."""
        self._leave()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Begin a save; Lightning announces no end, so the next phase marks it."""
        self._enter("checkpoint")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close a save that was the last thing of the run."""
        self._leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close what is open, so that a next run in this process starts afresh."""
        self._leave()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close what is open after the last hook."""
        self._leave()

    def _enter(self, name: str) -> None:
        self._leave()
        self._phase = Phase(name)

    def _leave(self) -> None:
        if self._phase is None:
            return
        use, self._phase = self._phase.close(), None
        self._pending |= use.metrics(prefix="" if use.phase == "step" else f"{use.phase}/")
        best = self.peaks.get(use.phase)
        if best is None or _peak(use) >= _peak(best):
            self.peaks[use.phase] = use


def _peak(use: MemoryUse) -> int:
    return use.rss if use.vram is None else use.vram.peak
