"""The Lightning data module NeMo trains from: rows tokenised in advance, in planned batches."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from megatron.core import parallel_state
from nemo.lightning.pytorch.plugins import MegatronDataSampler
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from nemo_reasoning.data.batching import PADDING_ROW, BatchPlan, PlannedBatches
from nemo_reasoning.data.counts import BatchCounts
from nemo_reasoning.data.store import TokenStore

PAD_MULTIPLE = 8
_Row = tuple[NDArray[np.int32], NDArray[np.bool_]]


class _PlannedSampler(MegatronDataSampler):  # type: ignore[misc]
    """NeMo's sampler without its rewrapping of the loader, which would choose other rows."""

    def transform_dataloader(self, dataloader: DataLoader[Any], consumed_samples: int = 0) -> DataLoader[Any]:
        """Return the loader as it is: its batches are planned already."""
        return dataloader


class _Rows(Dataset[_Row]):
    """Token ids [n] and loss mask [n] of each row; PADDING_ROW is a row without a target."""

    def __init__(self, store: TokenStore, pad_id: int) -> None:
        self.store = store
        self.padding = np.full(2, pad_id, dtype=np.int32), np.zeros(2, dtype=bool)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> _Row:
        if index == PADDING_ROW:
            return self.padding
        row = self.store[index]
        return row.ids, row.loss_mask


class ChatDataModule(pl.LightningDataModule):
    """Serves prepared chat rows; resumes at the trainer's step, whatever interrupted it.

    Batches hold, each [micro_batch_size, positions]: `tokens` and `labels` (the token that follows),
    int64; `loss_mask`, float32, 1 where the label is a target; `position_ids`, int64. Rows are padded
    on the right, which causal attention hides, so there is no attention mask.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seq_length: int,
        micro_batch_size: int,
        global_batch_size: int,
        data_parallel_size: int,
        max_steps: int | None,
        epochs: float,
        pad_id: int,
        fixed_length: bool,
        seed: int,
    ) -> None:
        """Open prepared data.

        Args:
            folder: What `prepare` wrote: token stores `train` and `validation`.
            seq_length: Most input positions of a row.
            micro_batch_size: Rows of one forward pass on one replica.
            global_batch_size: Rows of one optimiser step over all replicas.
            data_parallel_size: Number of replicas.
            max_steps: Optimiser steps of the run; None derives them from `epochs`.
            epochs: Passes over the training rows.
            pad_id: Token that fills short rows.
            fixed_length: Pad every micro-batch to `seq_length`, as pipeline parallelism requires.
            seed: Of the shuffling.
        """
        super().__init__()
        self.seq_length, self.micro_batch_size = seq_length, micro_batch_size
        self.global_batch_size, self.pad_id = global_batch_size, pad_id
        self.stores = {split: TokenStore.open(folder / split) for split in ("train", "validation")}
        shared = {
            "micro_batch_size": micro_batch_size,
            "global_batch_size": global_batch_size,
            "data_parallel_size": data_parallel_size,
            "pad_to": seq_length if fixed_length else PAD_MULTIPLE,
        }
        self.plans = {
            split: BatchPlan(
                lengths=store.lengths - 1,
                supervised=store.supervised,
                seed=seed if split == "train" else None,
                **shared,
            )
            for split, store in self.stores.items()
        }
        self.max_steps = max_steps or max(1, round(epochs * len(self.stores["train"]) / global_batch_size))
        self.data_sampler = _PlannedSampler(
            seq_len=seq_length, micro_batch_size=micro_batch_size, global_batch_size=global_batch_size
        )

    @property
    def validation_steps(self) -> int:
        """Global batches of one validation, which sees every row once."""
        return self.plans["validation"].steps_per_pass

    def batch_counts(self, step: int) -> BatchCounts:
        """Return the sizes of a training step over all replicas."""
        return self.plans["train"].counts(step)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the micro-batches of this rank from the trainer's current step on."""
        assert self.trainer is not None  # Lightning attaches itself before it asks
        return self._loader("train", first_step=self.trainer.global_step, steps=self.max_steps)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the micro-batches of this rank for one validation."""
        return self._loader("validation", first_step=0, steps=self.validation_steps)

    def _loader(self, split: str, *, first_step: int, steps: int) -> DataLoader[Any]:
        rank = parallel_state.get_data_parallel_rank()
        batches = PlannedBatches(self.plans[split], rank=rank, first_step=first_step, steps=steps)
        rows = _Rows(self.stores[split], self.pad_id)
        return DataLoader(rows, batch_sampler=batches, collate_fn=lambda micro: self._collate(micro, self.plans[split]))

    def _collate(self, rows: list[_Row], plan: BatchPlan) -> dict[str, torch.Tensor]:
        longest = max(len(ids) for ids, _ in rows) - 1
        positions = -(-longest // plan.pad_to) * plan.pad_to
        tokens = np.full((len(rows), positions), self.pad_id, dtype=np.int64)
        labels = np.full_like(tokens, self.pad_id)
        loss_mask = np.zeros(tokens.shape, dtype=np.float32)
        for place, (ids, mask) in enumerate(rows):
            tokens[place, : len(ids) - 1] = ids[:-1]
            labels[place, : len(ids) - 1] = ids[1:]
            loss_mask[place, : len(ids) - 1] = mask[1:]
        position_ids = np.tile(np.arange(positions), (len(rows), 1))
        arrays = {"tokens": tokens, "labels": labels, "loss_mask": loss_mask, "position_ids": position_ids}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
