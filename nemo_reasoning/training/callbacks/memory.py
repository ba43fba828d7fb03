"""Memory per phase and step, and bounds on what the process takes."""

import gc
from typing import Self

import torch

from nemo_reasoning.training.callbacks.base import Callback, Loop, RunContext, StepRecord, Validation
from nemo_reasoning.training.memory_stats import Phase


class MemoryMonitor(Callback):
    """Divides a run into phases and reports the memory of each.

    A step's memory goes to its record under plain names (rss_bytes, vram_peak_bytes, ...). Phases
    between steps (fit_start, validation, checkpoint) go to the next record with the phase before the
    name, such as "validation/vram_peak_bytes".
    """

    position = 20

    def __init__(self) -> None:
        """Measure nothing until `on_setup`."""
        self._phase: Phase | None = None
        self._pending: dict[str, float] = {}

    @classmethod
    def from_run(cls, context: RunContext) -> Self | None:
        """Measure unless `callbacks.memory` is off."""
        return cls() if context.run.settings.callbacks.memory else None

    def on_setup(self, loop: Loop) -> None:
        """Begin with the building of model and optimizer."""
        self._enter("fit_start")

    def on_step_start(self, loop: Loop) -> None:
        """Begin a step."""
        self._enter("step")

    def on_step_end(self, loop: Loop, record: StepRecord) -> None:
        """End a step, and add its memory and that of the phases since the record before."""
        self._leave()
        record.metrics |= self._pending
        self._pending = {}

    def on_validation_start(self, loop: Loop) -> None:
        """Begin a validation."""
        self._enter("validation")

    def on_validation_end(self, loop: Loop, validation: Validation) -> None:
        """End a validation."""
        self._leave()

    def on_save(self, loop: Loop) -> None:
        """Begin a save; the next phase ends it."""
        self._enter("checkpoint")

    def on_end(self, loop: Loop) -> None:
        """End a save that was the last thing of the run."""
        self._leave()

    def on_close(self, loop: Loop) -> None:
        """Close what is open, so that a next run in this process starts afresh."""
        self._leave()

    def _enter(self, name: str) -> None:
        self._leave()
        self._phase = Phase(name)

    def _leave(self) -> None:
        if self._phase is not None:
            use, self._phase = self._phase.close(), None
            self._pending |= use.metrics(prefix="" if use.phase == "step" else f"{use.phase}/")


class MemoryFraction(Callback):
    """Bounds what this process may take of its GPU; beyond it torch raises OutOfMemoryError."""

    position = 0

    def __init__(self, fraction: float) -> None:
        """Take the share of the GPU's memory, above 0 and at most 1."""
        self.fraction = fraction

    @classmethod
    def from_run(cls, context: RunContext) -> Self | None:
        """Bound where `trainer.memory_fraction` is given."""
        fraction = context.run.settings.trainer.memory_fraction
        return None if fraction is None else cls(fraction)

    def on_setup(self, loop: Loop) -> None:
        """Set the bound once the process knows its device."""
        torch.cuda.set_per_process_memory_fraction(self.fraction, loop.device)


class GarbageCollection(Callback):
    """Collects Python's garbage at certain steps only, on all ranks at once: none waits for another that collects."""

    position = 1

    def __init__(self, every_n_steps: int) -> None:
        """Take the steps between collections."""
        self._every_n_steps, self._was_enabled = every_n_steps, False

    @classmethod
    def from_run(cls, context: RunContext) -> Self | None:
        """Take over where `trainer.gc_interval` is given."""
        interval = context.run.settings.trainer.gc_interval
        return None if interval is None else cls(interval)

    def on_start(self, loop: Loop) -> None:
        """Stop Python's own collector."""
        self._was_enabled = gc.isenabled()
        gc.disable()

    def on_step_end(self, loop: Loop, record: StepRecord) -> None:
        """Collect when it is time."""
        if record.step % self._every_n_steps == 0:
            gc.collect()

    def on_validation_end(self, loop: Loop, validation: Validation) -> None:
        """Collect what a validation left."""
        gc.collect()

    def on_close(self, loop: Loop) -> None:
        """Let Python's own collector go on if it ran before."""
        if self._was_enabled:
            gc.enable()
