"""The Lightning data module NeMo trains from: rows tokenised in advance, in planned batches."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import lcm
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from megatron.core import parallel_state
from nemo.lightning.pytorch.plugins import MegatronDataSampler
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from nemo_reasoning.data.store import IGNORED_LABEL, TokenStore
from nemo_reasoning.models.flops import BatchCounts
from nemo_reasoning.training.batching import (
    PACK_MULTIPLE,
    PADDING_ROW,
    ROW_MULTIPLE,
    BatchPlan,
    PackedPlan,
    PairPlan,
    PlannedBatches,
    total_steps,
)

_ENDLESS = 10**9  # steps that no run takes
_Row = tuple[NDArray[np.int32], NDArray[np.bool_]]


class _PlannedSampler(MegatronDataSampler):  # type: ignore[misc]
    """NeMo's sampler that takes the planned batches as they are, and tells Megatron how many there are in a step."""

    def __init__(self, plans: dict[str, BatchPlan], **sizes: int) -> None:
        super().__init__(**sizes)
        self.plans = plans

    def transform_dataloader(self, dataloader: DataLoader[Any], consumed_samples: int = 0) -> DataLoader[Any]:
        """Return the loader as it is: NeMo's would choose other rows."""
        return dataloader

    def on_megatron_step_start(self, step: Any) -> Any:
        """Set the number of micro-batches, which packing makes differ from step to step."""
        step, trainer = super().on_megatron_step_start(step), step.trainer
        if trainer.training:
            count = self.plans["train"].micro_batches_of(trainer.global_step)
        else:
            started = trainer._evaluation_loop.batch_progress.current.started
            count = self.plans["validation"].micro_batches_of(started - 1)
        return replace(step, num_microbatches=count)


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


class _Pairs(Dataset[list[_Row]]):
    """The two rows of each pair, the preferred one first; PADDING_ROW is one row without a target."""

    def __init__(self, rows: _Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows) // 2

    def __getitem__(self, index: int) -> list[_Row]:
        if index == PADDING_ROW:
            return [self.rows[index]]
        return [self.rows[2 * index], self.rows[2 * index + 1]]


class ChatDataModule(pl.LightningDataModule):
    """Serves prepared chat rows; resumes at the trainer's step, whatever interrupted it.

    Batches hold, each [rows, positions]: `tokens` and `labels` (the token that follows, `IGNORED_LABEL` where
    it is no target), int64; `loss_mask`, 1 where the label is a target; `position_ids`, int64. Without
    packing, rows are padded on the right, which causal attention hides, so there is no attention mask.

    Packed batches are one row of samples laid end to end, with what NeMo's GPTSFTPackedDataset adds:
    `cu_seqlens` [1, samples + 2], int32, the bounds of the samples and -1; `cu_seqlens_argmin` and `max_seqlen`
    [1, 1]. The padding behind the last sample counts as one more sample. Of pairs, samples 2 n and 2 n + 1 belong
    together, and `loss_mask` is 1 at the last position of each second one: a loss of pairs has one term there.
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
        endless: bool = False,
        epochs: float,
        pad_id: int,
        share_positions: int = 1,
        packing: bool,
        pairs: bool = False,
        seed: int | None,
    ) -> None:
        """Open prepared data.

        Args:
            folder: What `prepare` wrote: token stores `train` and `validation`.
            seq_length: Most input positions of a row.
            micro_batch_size: Rows of one forward pass on one replica.
            global_batch_size: Rows of one optimiser step over all replicas.
            data_parallel_size: Number of replicas.
            max_steps: Optimiser steps of the run; None derives them from `epochs`.
            endless: Whether the steps may become more than that while they run.
            epochs: Passes over the training rows.
            pad_id: Token that fills short rows.
            share_positions: Ranks that share the positions of a micro-batch, and need equally many.
            packing: Lay rows end to end instead of padding each; `micro_batch_size` then says how many
                rows of `seq_length` a micro-batch has room for.
            pairs: Whether every two rows are a pair, which counts as one row.
            seed: Of the shuffling; None trains on the rows in the order they were prepared in.
        """
        super().__init__()
        self.seq_length, self.micro_batch_size = seq_length, micro_batch_size  # NeMo checks these three
        self.global_batch_size = global_batch_size
        self.packing, self.pairs, self.pad_id = packing, pairs, pad_id
        self.stores = {split: TokenStore.open(folder / split) for split in ("train", "validation")}
        self.plans = {
            split: self._plan(
                split,
                seq_length=seq_length,
                seed=seed if split == "train" else None,
                repeat=split == "train",
                micro_batch_size=micro_batch_size,
                global_batch_size=global_batch_size,
                data_parallel_size=data_parallel_size,
                pad_to=lcm(PACK_MULTIPLE if packing else ROW_MULTIPLE, share_positions),
            )
            for split in self.stores
        }
        self.max_steps = max_steps or total_steps(
            epochs=epochs, rows=len(self.plans["train"].lengths), global_batch_size=global_batch_size
        )
        self._horizon = _ENDLESS if endless else self.max_steps
        self.data_sampler = _PlannedSampler(
            self.plans, seq_len=seq_length, micro_batch_size=micro_batch_size, global_batch_size=global_batch_size
        )

    def _plan(self, split: str, *, seq_length: int, **plan: Any) -> BatchPlan:
        store = self.stores[split]
        plan |= {"lengths": store.lengths - 1, "supervised": store.supervised}
        if not self.packing:
            return BatchPlan(**plan)
        return (PairPlan if self.pairs else PackedPlan)(seq_length=seq_length, **plan)

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
        return self._loader("train", first_step=self.trainer.global_step, steps=self._horizon)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the micro-batches of this rank for one validation."""
        return self._loader("validation", first_step=0, steps=self.validation_steps)

    def _loader(self, split: str, *, first_step: int, steps: int) -> DataLoader[Any]:
        rank = parallel_state.get_data_parallel_rank()
        batches = PlannedBatches(self.plans[split], rank=rank, first_step=first_step, steps=steps)
        rows = _Rows(self.stores[split], self.pad_id)
        collate: Callable[..., dict[str, torch.Tensor]] = collate_packed if self.packing else collate_padded
        if self.pairs:
            collate = collate_pairs
        arrange = partial(collate, pad_id=self.pad_id, pad_to=self.plans[split].pad_to)
        return DataLoader(_Pairs(rows) if self.pairs else rows, batch_sampler=batches, collate_fn=arrange)


def collate_padded(rows: list[_Row], *, pad_id: int, pad_to: int) -> dict[str, torch.Tensor]:
    """Return a batch with one sample a row; `ChatDataModule` says what is in it."""
    positions = _rounded_up(max(len(ids) for ids, _ in rows) - 1, pad_to)
    tokens = np.full((len(rows), positions), pad_id, dtype=np.int64)
    labels = np.full_like(tokens, IGNORED_LABEL)
    for place, (ids, mask) in enumerate(rows):
        tokens[place, : len(ids) - 1] = ids[:-1]
        labels[place, : len(ids) - 1] = np.where(mask[1:], ids[1:], IGNORED_LABEL)
    position_ids = np.tile(np.arange(positions), (len(rows), 1))
    arrays = {"tokens": tokens, "labels": labels, "position_ids": position_ids}
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {**batch, "loss_mask": (batch["labels"] != IGNORED_LABEL).float()}


def collate_packed(rows: list[_Row], *, pad_id: int, pad_to: int) -> dict[str, torch.Tensor]:
    """Return a batch with all samples in one row; `ChatDataModule` says what is in it."""
    lengths = [len(ids) - 1 for ids, _ in rows]
    padding = _rounded_up(sum(lengths), pad_to) - sum(lengths)
    pad = np.full(padding, pad_id)
    tokens = np.concatenate([*(ids[:-1] for ids, _ in rows), pad]).astype(np.int64)
    labels = [np.where(mask[1:], ids[1:], IGNORED_LABEL) for ids, mask in rows]
    labels = np.concatenate([*labels, np.full(padding, IGNORED_LABEL)]).astype(np.int64)
    samples = lengths + [padding] * (padding > 0)
    position_ids = np.concatenate([np.arange(length) for length in samples])
    bounds = np.concatenate([[0], np.cumsum(samples), [-1]])
    arrays = {"tokens": tokens, "labels": labels, "position_ids": position_ids}
    batch = {name: torch.from_numpy(array)[None] for name, array in arrays.items()}
    return {
        **batch,
        "loss_mask": (batch["labels"] != IGNORED_LABEL).long(),
        "attention_mask": torch.ones(1, dtype=torch.int64),
        "cu_seqlens": torch.from_numpy(bounds.astype(np.int32))[None],
        "cu_seqlens_argmin": torch.tensor([[len(bounds) - 1]]),
        "max_seqlen": torch.tensor([[max(samples)]], dtype=torch.int32),
    }


def collate_pairs(pairs: list[list[_Row]], *, pad_id: int, pad_to: int) -> dict[str, torch.Tensor]:
    """Return a batch with the rows of all pairs in one row; `ChatDataModule` says what is in it."""
    batch = collate_packed([row for pair in pairs for row in pair], pad_id=pad_id, pad_to=pad_to)
    ends = np.cumsum([sum(len(ids) - 1 for ids, _ in pair) for pair in pairs]) - 1
    batch["loss_mask"].zero_()
    batch["loss_mask"][0, [int(end) for pair, end in zip(pairs, ends, strict=True) if len(pair) == 2]] = 1
    return batch


def _rounded_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
