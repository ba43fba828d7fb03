"""What callbacks see of a training, whatever engine runs it.

An engine is adapted in one place (`training.lightning_hooks`): it implements `Loop` and calls the hooks of `Callback`.
Nothing here knows NeMo, Lightning or Megatron.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, runtime_checkable

from rich.console import Console

from nemo_reasoning.models.flops import BatchCounts
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.training.batching import BatchPlan
from nemo_reasoning.training.heartbeat import Heartbeat
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.usage import Usage

if TYPE_CHECKING:
    import torch

    from nemo_reasoning.training.train import TrainingInputs

UNKNOWN_LENGTH = 10_000  # steps of a run of `trainer.hours` until they are estimated; the schedule still warms up then
Logits = Callable[["torch.Tensor"], "torch.Tensor"]  # token ids [batch, length] to logits [batch, length, vocabulary]


@dataclass
class StepRecord:
    """An optimizer step that was done.

    Attributes:
        step: Its number, counted from 1.
        metrics: What was measured: the loss before the update, `lr`, `grad_norm`; callbacks add theirs.
    """

    step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Validation:
    """A pass over all validation rows.

    Attributes:
        step: Optimizer steps done before it.
        loss: Mean over the supervised tokens; None if it is no number.
    """

    step: int
    loss: float | None


@dataclass(frozen=True)
class Questions:
    """What the model is asked while it trains, and who judges the answers.

    Attributes:
        questions: User turns.
        judge: Tells from the number of a question, the mode, what the model wrote and whether it came to
            its end if the answer is right.
    """

    questions: Sequence[str]
    judge: Callable[[int, Mode, str, bool], bool]


@runtime_checkable
class Batches(Protocol):
    """A source of batches that knows what every step takes."""

    @property
    def plans(self) -> Mapping[str, BatchPlan]:
        """Plans of the training and the validation batches, by split."""

    def batch_counts(self, step: int) -> BatchCounts:
        """Return the sizes of the batch of `step`, counted from 0, over all data-parallel ranks."""


class Logger(Protocol):
    """A place where records go."""

    def begin(self) -> None:
        """Open what needs a service, an account or a place, so that one that is missing is known before training."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a step; several calls of one step add up."""

    def resume_from(self, step: int) -> None:
        """Forget what a killed run logged after `step`."""

    def close(self) -> None:
        """Write what is pending."""


class Loop(Protocol):
    """The running training.

    Attributes:
        step: Optimizer steps done.
        max_steps: Optimizer steps of the whole run; may be set.
        world_size: Processes that train together.
        first_rank: Whether this is the process that writes files.
        data_rank: Which of the data-parallel replicas this process belongs to.
        device: Where this process computes.
        can_generate: Whether each rank has the whole sequence and all layers, as generating needs it.
        model: What is trained, as this rank holds it.
        stopping: Whether training ends after this step.
    """

    step: int
    max_steps: int
    world_size: int
    first_rank: bool
    data_rank: int
    device: "torch.device"
    can_generate: bool
    model: "torch.nn.Module"
    stopping: bool

    def logits(self) -> AbstractContextManager[tuple[Logits, int]]:
        """Put the model in evaluation mode for the length of a block.

        Yields its logits, and the number that lengths must be a multiple of. All ranks take part; training does
        not notice.
        """

    def announce_save(self) -> None:
        """Call `on_save` of all callbacks."""

    def save(self, path: Path) -> None:
        """Write model, optimizer and state of the training to a new folder; all ranks take part."""

    def any_rank(self, told: bool) -> bool:
        """Whether any of the processes says so; all ranks take part."""

    def agree(self, number: int) -> int:
        """Return the smallest of the numbers of all processes; all ranks take part."""

    def first_says(self, value: tuple[int, str, str]) -> tuple[int, str, str]:
        """Return what the first process gives; all ranks take part."""

    def barrier(self) -> None:
        """Wait for all processes."""

    def guard_updates(self, skip: Callable[[], bool]) -> None:
        """Ask `skip` before an update whose gradient is no number, on all ranks; where it says no, training fails."""

    def request_validation(self) -> None:
        """Have a validation after the step that is ending."""

    def set_schedule(self, *, max_steps: int, warmup_steps: int) -> None:
        """Give the learning rate schedule the length of this run, at the place where it is."""


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What callbacks build themselves from.

    Attributes:
        run: The run.
        inputs: Model and data it starts from.
        batches: Knows what every step takes.
        console: The user's terminal.
        show: Prints a line for the user; silent on all ranks but the first.
        loggers: Where metrics go.
        questions: Asked while training, if `callbacks.eval` asks for it.
        usage: When the command began, and what earlier starts took.
        afterwards: Seconds that the command is expected to need after training.
        stop_signal: Number of the signal that asked this process to stop; None if none did.
        heartbeat: What knows who of the other processes is gone; None to wait for them.
    """

    run: Run
    inputs: "TrainingInputs"
    batches: Batches
    console: Console
    show: Callable[[str], None]
    loggers: Sequence[Logger] = field(default_factory=tuple)
    questions: Questions | None = None
    usage: Usage
    afterwards: float
    stop_signal: Callable[[], int | None]
    heartbeat: Heartbeat | None = None


class Callback:
    """Hooks into a training; each does nothing until a subclass says otherwise.

    Callbacks run in the order of `position`, in every hook. The steps of one batch are: `on_step_start`, the step,
    `on_step_end`; then, where a validation is due, `on_validation_start`, a `on_validation_batch` for each global
    batch, and `on_validation_end`.

    Attributes:
        position: Order among callbacks. 0-19 set the step up; 20-39 measure it and add to its record; 40-59 write
            the record down and show it; 60-79 save; 80-99 let the model write, which takes long and can be missed.
    """

    position: ClassVar[int] = 50

    @classmethod
    def from_run(cls, context: RunContext) -> "Self | None":
        """Return the callback of a run; None where its settings leave it out."""
        raise NotImplementedError

    def on_setup(self, loop: Loop) -> None:
        """Processes know each other and their devices; there is no model yet."""

    def on_model(self, loop: Loop) -> None:
        """The model is built; adapters and weights may still be missing."""

    def on_start(self, loop: Loop) -> None:
        """Everything is loaded; the first step is about to come."""

    def on_step_start(self, loop: Loop) -> None:
        """A step begins."""

    def on_step_end(self, loop: Loop, record: StepRecord) -> None:
        """A step is done; add to its record or read it."""

    def on_validation_start(self, loop: Loop) -> None:
        """A validation begins."""

    def on_validation_end(self, loop: Loop, validation: Validation) -> None:
        """A validation is done."""

    def on_save(self, loop: Loop) -> None:
        """A checkpoint is about to be written."""

    def on_end(self, loop: Loop) -> None:
        """The last step is done."""

    def on_error(self, loop: Loop, error: BaseException) -> None:
        """Training is about to leave with an error."""

    def on_close(self, loop: Loop) -> None:
        """The training is over, one way or another, maybe before it began: undo what was done to model and process."""


def in_order(callbacks: Sequence[Callback]) -> Iterator[Callback]:
    """Yield callbacks in the order they run; of one position, as they are listed."""
    yield from sorted(callbacks, key=lambda callback: callback.position)
