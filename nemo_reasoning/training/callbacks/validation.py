"""Validation: one loss over all supervised tokens, and the checkpoints that follow it."""

from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from nemo import lightning as nl

from nemo_reasoning.training.batching import BatchPlan

VALIDATION_LOSS = "val_loss"


class HasPlans(Protocol):
    """A data module that knows which rows each batch holds."""

    plans: dict[str, BatchPlan]


class ValidationLoss(Callback):
    """Logs val_loss as the mean over the supervised tokens of all validation rows.

    NeMo weighs every global batch alike, so that the rows of a last, short batch count more than
    others and the loss of a data set depends on the batch size.
    """

    def __init__(self, data: HasPlans) -> None:
        """Take the data module that validation reads from."""
        self._data = data
        self._sums: list[tuple[torch.Tensor, int]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._sums = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the mean loss of a global batch and its number of tokens."""
        tokens = self._data.plans["validation"].counts(len(self._sums)).supervised_tokens
        self._sums.append((outputs.detach().double(), tokens))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the weighted mean; the last stage of a pipeline knows it, and tells the others."""
        tokens = sum(count for _, count in self._sums)
        loss = torch.stack([mean * count for mean, count in self._sums]).sum() / tokens
        if getattr(trainer.strategy, "pipeline_model_parallel_size", 1) > 1:
            from nemo.lightning._strategy_lib import _sync_from_last_pipeline_stage

            loss = loss.float()
            _sync_from_last_pipeline_stage(loss, broadcast=True)
        pl_module.log(VALIDATION_LOSS, loss.float(), prog_bar=False, batch_size=1)


class StepCheckpoint(nl.ModelCheckpoint):  # type: ignore[misc]
    """NeMo's checkpoint callback, with the number of finished steps in the name.

    NeMo logs the index of the step under "step", one less than the steps that were done.
    """

    def _monitor_candidates(self, trainer: Trainer) -> dict[str, torch.Tensor]:
        candidates: dict[str, torch.Tensor] = super()._monitor_candidates(trainer)
        return {**candidates, "step": torch.tensor(trainer.global_step)}
