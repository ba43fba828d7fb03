"""Saving: after every validation, and when the run is told to stop."""

import time
from collections.abc import Callable
from typing import Self

from nemo_reasoning.training.callbacks.base import Callback, Loop, RunContext, StepRecord, Validation
from nemo_reasoning.training.checkpoint_store import CheckpointStore
from nemo_reasoning.training.process import TIME_IS_UP, Stopped, signal_name


class Checkpointing(Callback):
    """Records every validation and saves after it; keeps the best checkpoints and the last one.

    When a signal arrived, or the job's time is nearly up, it saves and leaves, with the step in progress finished.
    So is a validation in progress; one that is due is made up for when the run goes on. Nothing else runs: grace
    periods are short. A signal during the last step lets training finish as usual. All ranks listen, and agree before
    any of them leaves.
    """

    position = 60

    def __init__(
        self,
        store: CheckpointStore,
        *,
        keep: int,
        show: Callable[[str], None],
        stop_signal: Callable[[], int | None],
        deadline: float | None,
    ) -> None:
        """Take where checkpoints go and when to leave.

        Args:
            store: Checkpoints and history of the run.
            keep: How many of the best, by validation loss, stay beside the last.
            show: Tells the user in one line what happened.
            stop_signal: Number of the signal that arrived; None if none did.
            deadline: `time.monotonic()` by which the last save must be done; None for none.
        """
        self._store, self._keep, self._show = store, keep, show
        self._stop_signal, self._deadline = stop_signal, deadline
        self._saved_step, self._save_seconds = 0, 0.0
        self._step_began, self._step_seconds = 0.0, 0.0

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Keep `trainer.keep_checkpoints` of the best, and leave after `trainer.max_hours`."""
        trainer = context.run.settings.trainer
        return cls(
            CheckpointStore(context.run.path, made_from=context.run.made_from(context.run.identity)),
            keep=trainer.keep_checkpoints,
            show=context.show,
            stop_signal=context.stop_signal,
            deadline=None if trainer.max_hours is None else context.usage.began + 3600 * trainer.max_hours,
        )

    def on_start(self, loop: Loop) -> None:
        """Forget what a killed run recorded after the checkpoint this one starts from."""
        self._saved_step = loop.step
        if loop.first_rank:
            self._store.history.drop_after(loop.step)

    def on_step_start(self, loop: Loop) -> None:
        """Take the time of the step."""
        self._step_began = time.monotonic()

    def on_step_end(self, loop: Loop, record: StepRecord) -> None:
        """Leave if the signal arrived during the step."""
        self._step_seconds = max(self._step_seconds, time.monotonic() - self._step_began)
        self._leave_if_told(loop)

    def on_validation_end(self, loop: Loop, validation: Validation) -> None:
        """Record the loss, save what it was measured of, and leave if the signal arrived meanwhile."""
        self._store.require_folder(loop)
        if loop.first_rank:
            self._store.history.append("validation", step=validation.step, loss=validation.loss)
        self._save(loop)
        self._leave_if_told(loop)

    def on_end(self, loop: Loop) -> None:
        """Save steps that no validation followed."""
        self._save(loop)

    def _save(self, loop: Loop) -> None:
        if self._saved_step != loop.step:
            began = time.monotonic()
            loop.announce_save()
            self._store.save(loop)
            self._saved_step, self._save_seconds = loop.step, time.monotonic() - began
        if loop.first_rank:
            self._store.retain(self._keep)
        loop.barrier()

    def _leave_if_told(self, loop: Loop) -> None:
        number = self._stop_signal()
        if loop.step >= loop.max_steps or not loop.any_rank(number is not None or self._late()):
            return
        number = -loop.agree(-(number or 0)) or None  # another process may have received it
        self._save(loop)
        reason, code = ("trainer.max_hours", TIME_IS_UP) if number is None else (signal_name(number), 128 + number)
        self._show(f"{reason}: saved step {loop.step} of {loop.max_steps}; run the same command to go on (exit {code})")
        raise Stopped(code, said=True)

    def _late(self) -> bool:
        """Whether another step and its save would end after the deadline; steps and saves differ, so with some air."""
        if self._deadline is None:
            return False
        return time.monotonic() + 1.5 * (self._step_seconds + self._save_seconds) >= self._deadline
