"""Hold a NeMo checkpoint in memory and ask it for logits, without a training run."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nemo_reasoning.backend.runtime import active, without_leftovers
from nemo_reasoning.models.widening import compute_in_float32

_ADAPTER_METADATA = "adapter_metadata.json"


@contextmanager
def open_nemo_model(checkpoint: Path, *, base: Path | None = None, dtype: torch.dtype = torch.float32) -> Iterator[Any]:
    """Hold NeMo's model of a checkpoint in evaluation mode, in `dtype`, for the length of the block.

    Arguments and place are those of `load_nemo_model`.
    """
    import nemo.lightning as nl
    from nemo.collections.llm.inference.base import _setup_trainer_and_restore_model
    from nemo.lightning import io, teardown
    from nemo.lightning.ckpt_utils import ckpt_to_context_subdir

    model = io.load_context(path=ckpt_to_context_subdir(checkpoint), subpath="model")
    model.config.params_dtype, model.config.bf16, model.config.fp16 = dtype, False, False
    model.config.fp8 = None  # a run with FP8 records it
    trainer = nl.Trainer(
        accelerator="gpu" if active().cuda else "cpu",
        devices=1,
        strategy=nl.MegatronStrategy(ddp="pytorch", setup_optimizers=False, use_te_rng_tracker=False),
        logger=False,
        enable_progress_bar=False,
    )
    with without_leftovers(), _with_base(checkpoint, base) as path:
        _setup_trainer_and_restore_model(path=path, trainer=trainer, model=model)
        try:
            yield model.eval()
        finally:
            teardown(trainer, model)


@contextmanager
def _with_base(checkpoint: Path, base: Path | None) -> Iterator[Path]:
    """Yield an adapter's checkpoint that names `base` as its base: NeMo takes the place recorded at its saving.

    The files are linked to, in a folder that lives as long as the block.
    """
    recorded = checkpoint / "weights" / _ADAPTER_METADATA
    if base is None or not recorded.is_file():
        yield checkpoint
        return
    with tempfile.TemporaryDirectory() as name:
        view = Path(name) / checkpoint.name
        (view / "weights").mkdir(parents=True)
        (view / "context").symlink_to((checkpoint / "context").resolve())
        for file in (checkpoint / "weights").iterdir():
            if file.name != _ADAPTER_METADATA:
                (view / "weights" / file.name).symlink_to(file.resolve())
        (view / "weights" / _ADAPTER_METADATA).write_text(json.dumps({"model_ckpt_path": str(base)}), encoding="utf-8")
        yield view


@contextmanager
def load_nemo_model(
    checkpoint: Path,
    *,
    base: Path | None = None,
    dtype: torch.dtype = torch.float32,
    prepare: Callable[[Any], None] | None = None,
) -> Iterator[Callable[..., torch.Tensor]]:
    """Load a NeMo checkpoint, or an adapter with its base, for the length of the block; call inside `backend`.

    Args:
        checkpoint: Folder of a full checkpoint, or of an adapter checkpoint.
        base: NeMo checkpoint of an adapter's base; None for the one that the adapter names.
        dtype: To which the loaded weights are rounded.
        prepare: Changes the loaded model in place, which then holds every weight in float32.

    Yields:
        A function from token ids [batch, positions], int64, to logits [batch, positions, vocabulary],
        float32. Keyword arguments go to NeMo's model.
    """
    with open_nemo_model(checkpoint, base=base, dtype=dtype) as model:
        if prepare is not None:
            prepare(model.float())
        compute_in_float32(model)

        @torch.no_grad()
        def logits(ids: torch.Tensor, *, position_ids: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
            if position_ids is None:
                position_ids = torch.arange(ids.shape[1]).expand_as(ids)
            output: torch.Tensor = model(ids, position_ids, **kwargs)
            return output.float()

        yield logits
