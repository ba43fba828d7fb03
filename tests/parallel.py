"""Tensor-parallel groups for tests that need Megatron and no trainer."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch


@contextmanager
def tensor_parallel_group(folder: Path, *, number: int = 0, size: int = 1) -> Iterator[None]:
    """Be a tensor-parallel rank."""
    from megatron.core import parallel_state

    if torch.distributed.is_initialized():  # by a training in this process
        parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()
    meet, patience = f"file://{folder}/meet", timedelta(minutes=3)
    torch.distributed.init_process_group("gloo", init_method=meet, rank=number, world_size=size, timeout=patience)
    parallel_state.initialize_model_parallel(size)
    try:
        yield
    finally:
        parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()
