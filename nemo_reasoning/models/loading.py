"""Hold a NeMo checkpoint in memory and ask it for logits, without a training run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nemo_reasoning.backend.runtime import active, without_leftovers
from nemo_reasoning.config.train import SftSettings


def held_dtype(settings: SftSettings) -> str:
    """Return the name of the dtype to which a run rounded its base weights: the lower of the stored and its own."""
    rounded = settings.trainer.precision == "bf16-mixed" or settings.model.dtype == "bfloat16"
    return "bfloat16" if rounded else settings.model.dtype


@contextmanager
def open_nemo_model(checkpoint: Path, *, dtype: torch.dtype = torch.float32) -> Iterator[Any]:
    """Hold NeMo's model of a checkpoint in evaluation mode for the length of the block; it computes in float32.

    Arguments and place are those of `load_nemo_model`.
    """
    import nemo.lightning as nl
    from nemo.collections.llm.inference.base import _setup_trainer_and_restore_model
    from nemo.lightning import io, teardown
    from nemo.lightning.ckpt_utils import ckpt_to_context_subdir

    model = io.load_context(path=ckpt_to_context_subdir(checkpoint), subpath="model")
    model.config.params_dtype, model.config.bf16 = dtype, False
    model.config.fp8 = None  # a run with FP8 records it
    trainer = nl.Trainer(
        accelerator="gpu" if active().cuda else "cpu",
        devices=1,
        strategy=nl.MegatronStrategy(ddp="pytorch", setup_optimizers=False, use_te_rng_tracker=False),
        logger=False,
        enable_progress_bar=False,
    )
    with without_leftovers():
        _setup_trainer_and_restore_model(path=checkpoint, trainer=trainer, model=model)
        try:
            yield model.float().eval()
        finally:
            teardown(trainer, model)


@contextmanager
def load_nemo_model(
    checkpoint: Path, *, dtype: torch.dtype = torch.float32, prepare: Callable[[Any], None] | None = None
) -> Iterator[Callable[..., torch.Tensor]]:
    """Load a NeMo checkpoint, or an adapter with its base, for the length of the block; call inside `backend`.

    Args:
        checkpoint: Folder of a full checkpoint, or of an adapter checkpoint that names its base.
        dtype: To which the loaded weights are rounded.
        prepare: Changes the loaded model in place.

    Yields:
        A function from token ids [batch, positions], int64, to logits [batch, positions, vocabulary],
        float32. Keyword arguments go to NeMo's model.
    """
    with open_nemo_model(checkpoint, dtype=dtype) as model:
        if prepare is not None:
            prepare(model)

        @torch.no_grad()
        def logits(ids: torch.Tensor, *, position_ids: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
            if position_ids is None:
                position_ids = torch.arange(ids.shape[1]).expand_as(ids)
            output: torch.Tensor = model(ids, position_ids, **kwargs)
            return output.float()

        yield logits
