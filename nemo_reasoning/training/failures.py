"""What libraries raise while a run trains, in words that say what to do; their tracebacks go to the log."""

import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nemo_reasoning.errors import NemoReasoningError, TrainingError
from nemo_reasoning.training.run_dir import Run

_AGAIN = "the same command goes on after the last save"
_LOST_RANK = re.compile(
    r"Connection (?:closed|reset) by peer|NCCL|gloo.*(?:timed? ?out|peer)|ProcessGroup", re.IGNORECASE
)
_NOT_FINITE = re.compile(r"found (?:NaN|Inf|infinite)|loss is NaN|NaN loss", re.I)


@contextmanager
def translated_errors(run: Run, *, batch: Callable[[], str]) -> Iterator[None]:
    """Turn an exception of another package into a `TrainingError` with cause and remedy.

    Args:
        run: What is trained.
        batch: Says in words which step is running, and with which rows.

    Raises:
        TrainingError: The block failed for a reason that is known; the traceback is on stderr, the run's log.
    """
    try:
        yield
    except NemoReasoningError:
        raise
    except Exception as error:
        known = _explained(error, run, batch)
        if known is None:
            raise
        traceback.print_exc()
        raise TrainingError(f"{known}. The traceback is in {run.path / 'log.txt'}") from error


def _explained(error: Exception, run: Run, batch: Callable[[], str]) -> str | None:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    said = str(error)
    if "OutOfMemoryError" in kinds or isinstance(error, MemoryError) or "can't allocate memory" in said:
        return f"out of memory; {_smaller(run)}, then {_AGAIN}"
    if isinstance(error, ArithmeticError) or _NOT_FINITE.search(said):
        return (
            f"the loss or a gradient is no number in {batch()}. Usual causes: optim.lr={run.settings.optim.lr:g} is "
            "too high, a row that is broken, or weights of the base that are no numbers. Lower optim.lr (another run), "
            f"or look at these rows; {_AGAIN}"
        )
    if "DataLoader worker" in said:
        return f"a process that reads data died ({said.splitlines()[0]}), most likely for lack of memory; {_AGAIN}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}; repair that or choose another output_dir, then {_AGAIN}"
    if "DistBackendError" in kinds or "DistNetworkError" in kinds or _LOST_RANK.search(said):
        return (
            f"another process of this training ended ({said.splitlines()[0][:200]}); its own message comes before "
            f"this one, or on its machine; {_AGAIN}"
        )
    return None


def _smaller(run: Run) -> str:
    """Return the next setting that needs less memory."""
    from nemo_reasoning.config.trainer import Recompute

    trainer = run.settings.trainer
    if trainer.micro_batch_size > 1:
        return f"set trainer.micro_batch_size={trainer.micro_batch_size // 2} (it is {trainer.micro_batch_size})"
    if trainer.recompute is not Recompute.full:
        return "set trainer.recompute=full"
    return "choose peft=qlora, a smaller trainer.seq_length (another run), or a larger GPU"
