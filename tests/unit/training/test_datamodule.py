"""What the model is fed: shapes, labels, targets, and the same batches after a restart as without one.

The module under test imports NeMo, which takes seconds, so nothing here does so before a test runs.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from nemo_reasoning.data.store import IGNORED_LABEL, Encoded, TokenStore

if TYPE_CHECKING:
    from nemo_reasoning.training.datamodule import ChatDataModule

TRAIN, VALIDATION = [9, 4, 17, 6, 30, 5, 11, 8, 3, 14, 7], [5, 12, 3]
PAD = 99


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return prepared rows; the tokens of row n are 100 * n, 100 * n + 1, …, every third one no target."""
    out = tmp_path_factory.mktemp("prepared")
    for split, lengths in (("train", TRAIN), ("validation", VALIDATION)):
        rows = (np.arange(100 * row, 100 * row + length, dtype=np.int32) for row, length in enumerate(lengths))
        TokenStore.write(out / split, (Encoded(ids, ids % 3 != 0) for ids in rows))
    return out


def module(folder: Path, **changes: Any) -> "ChatDataModule":
    """Return the data module in a run of 6 steps of 4 rows, unless changed."""
    from nemo_reasoning.training.datamodule import ChatDataModule

    arguments = {"micro_batch_size": 2, "global_batch_size": 4, "data_parallel_size": 1, "seq_length": 32, "seed": 3}
    arguments |= {"max_steps": 6, "epochs": 1.0, "pad_id": PAD, "packing": False}
    return ChatDataModule(folder, **arguments | changes)


@pytest.fixture
def rank() -> Iterator[Any]:
    """Yield what makes this process a replica."""
    from megatron.core import parallel_state

    yield parallel_state.set_data_parallel_rank
    parallel_state.set_data_parallel_rank(None)


class Recorder(LightningModule):
    """Keeps the tokens of every batch, and the step it came in."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, list[list[int]]]] = []
        self.validated: list[list[int]] = []

    def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.seen.append((self.global_step, batch["tokens"].tolist()))
        return self.weight.sum()

    def validation_step(self, batch: dict[str, torch.Tensor]) -> None:
        self.validated += batch["tokens"].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: "ChatDataModule", *, checkpoint: Path | None = None) -> tuple[Recorder, Trainer]:
    """Run to the end of `max_steps`, from a checkpoint if there is one."""
    trainer = Trainer(
        accelerator="cpu",
        max_steps=data.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=data.plans["train"].micro_batches,
        val_check_interval=data.max_steps * data.plans["train"].micro_batches,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    recorder = Recorder()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer.fit(recorder, datamodule=data, ckpt_path=checkpoint)
    return recorder, trainer


def test_batches_predict_the_token_that_follows(folder: Path) -> None:
    data = module(folder)
    batches = list(_training_batches(data))
    assert len(batches) == 6 * 2
    for batch in batches:
        assert {name: tensor.dtype for name, tensor in batch.items()} == {
            "tokens": torch.int64,
            "labels": torch.int64,
            "loss_mask": torch.float32,
            "position_ids": torch.int64,
        }
        assert len({tensor.shape for tensor in batch.values()}) == 1
        assert batch["position_ids"].tolist() == [list(range(batch["tokens"].shape[1]))] * 2
        for place in range(2):
            _check_row({name: tensor[place].tolist() for name, tensor in batch.items()})


def _check_row(row: dict[str, list[Any]]) -> None:
    positions = TRAIN[row["tokens"][0] // 100] - 1  # the last token is predicted, and predicts nothing
    first, padding = row["tokens"][0], len(row["tokens"]) - positions
    assert row["tokens"] == [*range(first, first + positions), *[PAD] * padding]
    following = range(first + 1, first + 1 + positions)
    assert row["labels"] == [
        *(label if label % 3 else IGNORED_LABEL for label in following),
        *[IGNORED_LABEL] * padding,
    ]
    assert row["loss_mask"] == [float(label != IGNORED_LABEL) for label in row["labels"]]


def _training_batches(data: "ChatDataModule") -> Iterator[dict[str, torch.Tensor]]:
    data.trainer = Trainer(accelerator="cpu", barebones=True)
    return iter(data.train_dataloader())


@pytest.mark.parametrize(("ranks", "multiple"), [(1, 16), (2, 16), (3, 48)])
def test_rows_are_padded_as_far_as_planned(folder: Path, ranks: int, multiple: int) -> None:
    """To what kernels ask for, and so that ranks with sequence parallelism have equally many positions."""
    data = module(folder, share_positions=ranks)
    batches = list(_training_batches(data))
    for step in range(6):
        micro = batches[2 * step : 2 * step + 2]
        counts = data.batch_counts(step)
        assert counts.tokens == sum(batch["tokens"].numel() for batch in micro)
        assert counts.nonpad_tokens == sum(int((batch["tokens"] != PAD).sum()) for batch in micro)
        assert counts.supervised_tokens == sum(int(batch["loss_mask"].sum()) for batch in micro)
        assert counts.samples == 4
    widths = {batch["tokens"].shape[1] for batch in batches}
    assert {width % multiple for width in widths} == {0}


def test_replicas_share_out_each_step(folder: Path, rank: Any) -> None:
    whole = [_first_tokens(batch) for batch in _training_batches(module(folder, micro_batch_size=4))]
    shares = []
    for replica in range(2):
        rank(replica)
        shares.append([_first_tokens(batch) for batch in _training_batches(module(folder, data_parallel_size=2))])
    assert [sorted(one + other) for one, other in zip(*shares, strict=True)] == [sorted(tokens) for tokens in whole]


def _first_tokens(batch: dict[str, torch.Tensor]) -> list[int]:
    return batch["tokens"][:, 0].tolist()


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_continued_run_sees_the_batches_of_the_uninterrupted_one(folder: Path, tmp_path: Path, stop: int) -> None:
    whole, _ = fit(module(folder))
    assert [step for step, _ in whole.seen] == [step for step in range(6) for _ in range(2)]
    before, trainer = fit(module(folder, max_steps=stop))
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    after, _ = fit(module(folder), checkpoint=tmp_path / "stopped.ckpt")
    assert before.seen + after.seen == whole.seen
    assert after.validated == whole.validated


def test_validation_sees_every_row_once(folder: Path) -> None:
    data = module(folder)
    assert data.validation_steps == 1
    recorder, _ = fit(data)
    first_tokens = [row[0] for row in recorder.validated]
    assert sorted(first_tokens) == [0, PAD, 100, 200]
    [padding] = [row for row in recorder.validated if row[0] == PAD]
    assert set(padding) == {PAD}
    batches = list(data.val_dataloader())
    assert sum(int(batch["loss_mask"].sum()) for batch in batches) == data.stores["validation"].supervised.sum()


@pytest.mark.parametrize(
    ("max_steps", "epochs", "steps"), [(5, 9.0, 5), (None, 1.0, 3), (None, 2.0, 6), (None, 0.01, 1)]
)
def test_passes_become_steps(folder: Path, max_steps: int | None, epochs: float, steps: int) -> None:
    assert module(folder, max_steps=max_steps, epochs=epochs).max_steps == steps


def test_nemo_leaves_the_loader_as_it_is(folder: Path) -> None:
    data = module(folder)
    loader = data.val_dataloader()
    assert data.data_sampler.transform_dataloader(loader, consumed_samples=8) is loader


def test_packed_rows_lie_end_to_end(folder: Path) -> None:
    from nemo_reasoning.training.datamodule import collate_packed

    rows = [TokenStore.open(folder / "train")[row] for row in (0, 1)]
    batch = collate_packed([(row.ids, row.loss_mask) for row in rows], pad_id=PAD, pad_to=16)
    assert batch["tokens"].tolist() == [[*range(8), 100, 101, 102, *[PAD] * 5]]
    following = [*range(1, 9), 101, 102, 103]
    assert batch["labels"].tolist() == [[label if label % 3 else IGNORED_LABEL for label in following] + [-100] * 5]
    assert batch["position_ids"].tolist() == [[*range(8), *range(3), *range(5)]]
    assert batch["cu_seqlens"].tolist() == [[0, 8, 11, 16, -1]]
    assert (batch["cu_seqlens_argmin"].tolist(), batch["max_seqlen"].tolist()) == ([[4]], [[8]])


def test_packed_batches_look_like_those_of_nemos_own_dataset(folder: Path, tmp_path: Path) -> None:
    from nemo.collections.llm.gpt.data.core import GPTSFTPackedDataset

    from nemo_reasoning.training.datamodule import collate_packed

    rows = [TokenStore.open(folder / "train")[row] for row in (0, 1)]
    bounds = np.cumsum([0, *(len(row.ids) for row in rows)]).tolist()
    theirs = GPTSFTPackedDataset.__new__(GPTSFTPackedDataset)
    theirs.tokenizer, theirs.max_seq_length = SimpleNamespace(eos_id=PAD), 64
    theirs.pad_to_max_length = theirs.pad_cu_seqlens = theirs.ceil_to_power_2 = False
    theirs.pad_seq_length_to_mult, theirs.return_cu_seqlen, theirs.answer_only_loss = 16, True, True
    item = {
        "input_ids": np.concatenate([row.ids for row in rows]),
        "seq_boundaries": bounds,
        "loss_mask": np.concatenate([row.loss_mask for row in rows]),
    }
    expected = theirs.collate_fn([item])
    ours = collate_packed([(row.ids, row.loss_mask) for row in rows], pad_id=PAD, pad_to=16)
    unused = {"token_count", "cu_seqlens_unpadded", "cu_seqlens_unpadded_argmin"}  # NeMo's model reads none of them
    assert ours.keys() == expected.keys() - unused
    for name, tensor in ours.items():
        assert (tensor.dtype, tensor.shape) == (expected[name].dtype, expected[name].shape), name
        if name not in ("labels", "loss_mask", "position_ids"):
            assert tensor.tolist() == expected[name].tolist(), name
