"""Megatron's checkpoints, written without processes beside the training."""

import errno
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from parallel import tensor_parallel_group

from nemo_reasoning.artifacts import no_room
from nemo_reasoning.backend.checkpoint_files import WRITTEN_HERE
from nemo_reasoning.backend.patching import applied


@pytest.fixture(autouse=True)
def alone(nemo_cpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every other process; Megatron is loaded before."""
    from megatron.core.dist_checkpointing import save  # noqa: F401

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(os, "fork", refuse)
    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", refuse)


def save(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Save tensors as shards, in two files where there are several."""
    from megatron.core.dist_checkpointing import ShardedTensor, save
    from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy

    folder.mkdir()
    shards = {name: ShardedTensor.from_rank_offsets(name, tensor) for name, tensor in tensors.items()}
    with applied(WRITTEN_HERE):
        save(shards, folder, TorchDistSaveShardedStrategy("torch_dist", 1, thread_count=2))


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    from megatron.core.dist_checkpointing import ShardedTensor, load

    tensors = {name: torch.randn(size, 3) for name, size in (("a", 5), ("b", 700), ("c", 2))}
    with tensor_parallel_group(tmp_path):
        for folder in (tmp_path / "first", tmp_path / "second"):  # Megatron keeps things between saves
            save(folder, tensors)
            assert len(list(folder.glob("*.distcp"))) == 2
            empty = {name: ShardedTensor.from_rank_offsets(name, torch.zeros_like(t)) for name, t in tensors.items()}
            found = load(empty, folder)
            assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_an_error_of_a_writer_is_that_of_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(filesystem_async, "_write_item", full)
    with tensor_parallel_group(tmp_path), pytest.raises(BaseException, match="No space") as raised:
        save(tmp_path / "full", {"a": torch.ones(3)})
    assert no_room(raised.value) == "the disk is full"
