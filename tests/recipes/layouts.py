"""Layouts of processes, and a short training in one of them."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from launch import Ranks, records, tiny_overrides

from nemo_reasoning.training.checkpoints import list_checkpoints

COMPARED = ("loss", "grad_norm", "val_loss")
TOLERANCE = 1e-4
SHORT = (
    *("trainer.max_steps=3", "trainer.eval_interval=1", "trainer.keep_checkpoints=3"),
    *("data.rows=60", "peft.dropout=0"),
)
Measured = dict[str, dict[int, float]]  # by name and step


@dataclass(frozen=True)
class Layout:
    """How processes share a model.

    Attributes:
        tensor: Ranks that share each linear.
        pipeline: Ranks that share the layers.
        data: Replicas.
        sequence: Whether the tensor-parallel ranks share the positions too.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    sequence: bool = False

    @property
    def processes(self) -> int:
        """Number of processes."""
        return self.tensor * self.pipeline * self.data

    @property
    def overrides(self) -> list[str]:
        """The settings that ask for it."""
        return [
            f"trainer.devices={self.processes}",
            f"trainer.tensor_model_parallel_size={self.tensor}",
            f"trainer.pipeline_model_parallel_size={self.pipeline}",
            f"trainer.sequence_parallel={str(self.sequence).lower()}",
        ]


LAYOUTS = {
    "1": Layout(),
    "tensor 2": Layout(tensor=2),
    "tensor 2, sequence": Layout(tensor=2, sequence=True),
    "pipeline 2": Layout(pipeline=2),
    "data 2": Layout(data=2),
    "tensor 2 x pipeline 2": Layout(tensor=2, pipeline=2, sequence=True),
    "tensor 2 x data 2": Layout(tensor=2, data=2),
    "pipeline 2 x data 2": Layout(pipeline=2, data=2),
}


class Refused(Exception):
    """A training that a layout does not have, with what was said about it."""


def train_in(layout: Layout, model: Path, out: Path, *more: str, scheme: str = "lora") -> Measured:
    """Train for three steps in a layout, and return what was measured.

    Raises:
        Refused: It was refused.
    """
    overrides = tiny_overrides(model, out, *SHORT, *layout.overrides, f"peft={scheme}", *more)
    if scheme == "none":
        overrides = [one for one in overrides if not one.startswith("peft.")]
    codes, texts = Ranks("sft_lora", *overrides, count=layout.processes).wait()
    refusals = [text.partition("ConfigError:\n- ")[2] for text in texts]
    if set(codes) == {1} and all(refusals):
        raise Refused(refusals[0].splitlines()[0])
    assert set(codes) == {0}, f"{codes}\n{texts[0]}\n{texts[-1]}"
    return {name: records(out, name) for name in COMPARED}


def go_back(out: Path, *, step: int) -> None:
    """Remove the checkpoints of a run after a step, as if it had been killed."""
    for checkpoint in list_checkpoints(out):
        if checkpoint.step > step:
            shutil.rmtree(checkpoint.path)


def largest_difference(one: Measured, other: Measured) -> float:
    """Return the largest difference of what two trainings measured, of numbers above 1 as a share."""
    assert {name: set(steps) for name, steps in one.items()} == {name: set(steps) for name, steps in other.items()}
    pairs = [(one[name][step], other[name][step]) for name in one for step in one[name]]
    return max(abs(a - b) / max(1.0, abs(a)) for a, b in pairs)
