"""The checkpoints in a run's folder: which there are, which is the best, which to go on from."""

import re
from dataclasses import dataclass
from pathlib import Path

from nemo_reasoning.errors import CheckpointError

CHECKPOINT_NAME = "{step}-{val_loss:.4f}"
_NAME = re.compile(r"step=(\d+)-val_loss=([\d.]+|nan|inf)(-last)?(?:-v\d+)?")
_UNFINISHED = "-unfinished"  # NeMo puts a marker of this name beside a checkpoint while it is being written


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint.

    Attributes:
        path: Its folder, with `weights` and `context`.
        step: Optimiser steps done.
        val_loss: Validation loss at that step, or the latest before it.
        last: Whether it is kept to go on from, not as one of the best.
    """

    path: Path
    step: int
    val_loss: float
    last: bool


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the finished checkpoints of a run folder, by step."""
    found = []
    for path in (folder / "checkpoints").glob("step=*"):
        match = _NAME.fullmatch(path.name)
        if match and path.is_dir() and not path.with_name(path.name + _UNFINISHED).exists():
            found.append(Checkpoint(path, int(match[1]), float(match[2]), last=match[3] is not None))
    return sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.last))


def last_step(folder: Path) -> int:
    """Return the step a run would go on from; 0 if it has no checkpoint yet."""
    return max((checkpoint.step for checkpoint in list_checkpoints(folder) if checkpoint.last), default=0)


def best_checkpoint(folder: Path) -> Checkpoint:
    """Return the checkpoint with the lowest validation loss; of equals the later one.

    Raises:
        CheckpointError: The run has none.
    """
    found = list_checkpoints(folder)
    if not found:
        raise CheckpointError(f"{folder} has no finished checkpoint; train first: recipes/sft_lora.py")
    measured = [checkpoint for checkpoint in found if checkpoint.val_loss == checkpoint.val_loss]  # not NaN
    return min(measured or found, key=lambda checkpoint: (checkpoint.val_loss, -checkpoint.step))
