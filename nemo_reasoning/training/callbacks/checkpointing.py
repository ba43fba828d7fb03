"""SIGTERM: finish the step, save, stop."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from nemo_reasoning.errors import ConfigError

EXIT_CODE = 128 + signal.SIGTERM  # what a shell reports for a process that SIGTERM ended


class SigtermSave(Callback):
    """Saves the last checkpoint when the process is told to end, then exits with `EXIT_CODE` (143).

    The step in progress is finished first; so is a validation in progress. Nothing else runs: grace
    periods are short. A signal during the last step lets training finish as usual.

    Lightning's own handling raises after the step without saving, and NeMo's PreemptionCallback
    exits with 0, as a finished run does, and listens on one rank only. Here every rank listens, and
    all ranks agree before any of them leaves.
    """

    def __init__(self, *, show: Callable[[str], None]) -> None:
        """Take `show`, which tells the user in one line what happened."""
        self._show = show
        self._received = False
        self._previous: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen from now on; a signal that arrived during setup counts.

        Raises:
            ConfigError: No checkpoint callback keeps a last checkpoint.
        """
        _last_checkpoint(trainer)
        self._received = trainer.received_sigterm
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._receive)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Leave if the signal arrived during the step."""
        self._leave_if_told(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave if the signal arrived during validation."""
        if not trainer.sanity_checking:
            self._leave_if_told(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop listening."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop listening."""
        self._restore()

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self._received = True

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def _leave_if_told(self, trainer: Trainer) -> None:
        if trainer.global_step == trainer.max_steps or not self._told(trainer):
            return
        checkpoint = _last_checkpoint(trainer)
        if checkpoint._last_global_step_saved != trainer.global_step:
            checkpoint._save_last_checkpoint(trainer, checkpoint._monitor_candidates(trainer))
        finalize = getattr(trainer.strategy.checkpoint_io, "maybe_finalize_save_checkpoint", None)
        if finalize is not None:  # NeMo's asynchronous saves
            finalize(blocking=True)
        self._show(f"SIGTERM: saved step {trainer.global_step}; run the same command to go on (exit {EXIT_CODE})")
        raise SIGTERMException(EXIT_CODE)

    def _told(self, trainer: Trainer) -> bool:
        if trainer.world_size == 1:
            return self._received
        flag = torch.tensor(int(self._received), device=trainer.strategy.root_device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag.item())


def _last_checkpoint(trainer: Trainer) -> ModelCheckpoint:
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.save_last:
            return callback
    raise ConfigError("SIGTERM could not save: no ModelCheckpoint has save_last; set save_last=True on one")
