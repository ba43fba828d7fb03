"""A real Lightning run that logs what NeMo logs, on a language model of a few hundred weights."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader, TensorDataset

from nemo_reasoning.data.counts import BatchCounts
from nemo_reasoning.training.callbacks.order import attach

VOCAB, LENGTH, BATCH = 11, 6, 4


class TinyModel(LightningModule):
    """Predicts the next token from this one, with dropout, under NeMo's names for its metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(VOCAB, 8)
        self.dropout = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(8, VOCAB)
        self.losses: list[float] = []

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, attention_mask: None) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.dropout(self.embed(input_ids)))
        return logits

    def _loss(self, batch: list[torch.Tensor]) -> torch.Tensor:
        (ids,) = batch
        logits = self(ids[:, :-1], torch.arange(LENGTH), None)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        loss = self._loss(batch)
        self.losses.append(loss.item())
        self.log("reduced_train_loss", loss.detach())
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log("global_step", float(self.global_step))
        return loss

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        self.log("val_loss", self._loss(batch), on_epoch=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.05)


class TinyData(LightningDataModule):
    """Batches of random tokens that resume where a checkpoint left off; batch n has n + 1 samples' counts."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(VOCAB, (64 * BATCH, LENGTH), generator=generator)

    def batch_counts(self, step: int) -> BatchCounts:
        samples = step + 1
        return BatchCounts(
            samples=samples, tokens=10 * samples, nonpad_tokens=8 * samples, supervised_tokens=3 * samples
        )

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(first=self.trainer.global_step if self.trainer else 0)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(first=60)

    def _loader(self, *, first: int) -> DataLoader[Any]:
        return DataLoader(TensorDataset(self.ids[first * BATCH :]), batch_size=BATCH)


class At(Callback):
    """Does something in a hook at one step."""

    def __init__(self, step: int, action: Callable[[], object], *, hook: str = "on_train_batch_end") -> None:
        def act(trainer: Trainer, *_: object) -> None:
            if trainer.global_step == step and not trainer.sanity_checking:
                action()

        setattr(self, hook, act)


class Reseed(Callback):
    """Seeds each step by its number, so that a resumed run draws the dropout of an uninterrupted one."""

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        torch.manual_seed(trainer.global_step)


def fit(
    folder: Path,
    callbacks: list[Callback],
    *,
    max_steps: int,
    loggers: list[Logger] | None = None,
    resume: str | None = None,
) -> TinyModel:
    """Train with a validation and a checkpoint every second step."""
    torch.manual_seed(0)
    model = TinyModel()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=max_steps,
        max_epochs=-1,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        limit_val_batches=1,
        num_sanity_val_steps=1,
        logger=False,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder / "checkpoints", save_last=True, every_n_train_steps=2)],
    )
    trainer.loggers = loggers or []
    attach(trainer, [Reseed(), *callbacks])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer.fit(model, datamodule=TinyData(), ckpt_path=resume)
    return model
