"""What libraries raise while a run trains, in words that say what to do; their tracebacks go to the log."""

import errno
import os
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nemo_reasoning.artifacts import storage_problem
from nemo_reasoning.errors import NemoReasoningError, TrainingError, is_failure
from nemo_reasoning.training.heartbeat import Heartbeat
from nemo_reasoning.training.run_dir import Run

_NOTICED = 3.0  # seconds until a heartbeat knows what a collective knows already
_AGAIN = "the same command goes on after the last save"
_DISTRIBUTED = ("DistBackendError", "DistNetworkError", "DistStoreError")
_MEMORY = re.compile(
    r"can't allocate memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|Cuda failure \S* ?'?out of memory"
)
_NOT_FINITE = re.compile(r"found (?:NaN|Inf) in|returned nan values", re.IGNORECASE)
_PORT = re.compile(r"EADDRINUSE|address already in use", re.IGNORECASE)
_APART = re.compile(
    r"waiting for clients|Connection refused|client socket has (?:timed out|failed)|connect.{0,20}timed? ?out",
    re.IGNORECASE,
)
_ENDED = re.compile(r"Connection (?:closed|reset) by peer|Broken pipe|ncclRemoteError", re.IGNORECASE)
_SILENT = re.compile(r"Timed out waiting \d+ms for|Watchdog caught collective operation timeout", re.IGNORECASE)
_WORKER_KILLED = re.compile(r"DataLoader worker \(pid.*\) is killed by signal: Killed")


class NonFiniteLoss(ArithmeticError):
    """The loss of a step, or a gradient, is NaN or infinite."""


@contextmanager
def translated_errors(run: Run, *, batch: Callable[[], str], heartbeat: Heartbeat | None = None) -> Iterator[None]:
    """Turn an exception of another package into a `TrainingError` with cause and remedy.

    Only what is certain is translated: an exception whose cause is not known leaves as it is.

    Args:
        run: What is trained.
        batch: Says in words which step is running, and with which rows.
        heartbeat: Knows who of the other processes is gone.

    Raises:
        TrainingError: The block failed for a reason that is known; the traceback is on stderr, the run's log.
    """
    try:
        yield
    except NemoReasoningError:
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        known = _lost(error, run, heartbeat) or _explained(error, run, batch)
        if known is None:
            raise
        traceback.print_exc()
        raise TrainingError(f"{known}. The traceback is in {run.path / 'log.txt'}") from error


def peer_lost(run: Run, lost: str) -> str:
    """Say that another process is gone, what is saved, and how to go on.

    Args:
        run: What is trained.
        lost: Who is gone, and how that was noticed.
    """
    last = run.last
    saved = "nothing is saved yet" if last is None else f"step {last.step} is saved"
    return (
        f"{lost}; {saved}. Look at its machine and at what it said last, then start all processes again: they go on "
        "after the last save"
    )


def _lost(error: BaseException, run: Run, heartbeat: Heartbeat | None) -> str | None:
    """Return what to say of a collective that failed because another process is gone."""
    if heartbeat is None or not _of_processes(error):
        return None
    lost = heartbeat.wait(_NOTICED)
    return None if lost is None else peer_lost(run, lost)


def _of_processes(error: BaseException) -> bool:
    kinds, said = {kind.__name__ for kind in type(error).__mro__}, str(error)
    return bool(kinds.intersection(_DISTRIBUTED)) or "gloo" in said or "NCCL" in said


def _explained(error: BaseException, run: Run, batch: Callable[[], str]) -> str | None:
    kinds, said = {kind.__name__ for kind in type(error).__mro__}, str(error)
    if _is_memory(error, kinds):
        return f"out of memory; {_smaller(run)}, then {_AGAIN}"
    if isinstance(error, NonFiniteLoss | FloatingPointError) or _NOT_FINITE.search(said):
        return (
            f"the loss or a gradient is no number in {batch()}. Usual causes: optim.lr={run.settings.optim.lr:g} is "
            "too high, a row that is broken, or weights of the base that are no numbers. Lower optim.lr (another run), "
            "look at these rows, or leave a few such steps out with trainer.max_skipped_steps; the same command goes "
            "on after the last save, and meets this step again"
        )
    if _WORKER_KILLED.search(said):
        return f"a process that reads data was killed ({said.splitlines()[0]}), mostly for lack of memory; {_AGAIN}"
    if _of_processes(error):
        return _between_processes(said)
    problem = storage_problem(error, places=(run.path,))
    return None if problem is None else f"{problem}, then {_AGAIN}"


def _is_memory(error: BaseException, kinds: set[str]) -> bool:
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return "OutOfMemoryError" in kinds or isinstance(error, MemoryError) or _MEMORY.search(str(error)) is not None


def _between_processes(said: str) -> str | None:
    """Explain what torch.distributed says: about this process, about others, or about the way between them."""
    line = said.splitlines()[0][:200] if said else ""
    address, port = os.environ.get("MASTER_ADDR", "localhost"), os.environ.get("MASTER_PORT", "?")
    if _PORT.search(said):
        found = re.search(r"port:? (\d+)", said)
        return (
            f"port {found.group(1) if found else port} is used by another program, or by another training on this "
            f"machine; end that, or set MASTER_PORT to a free port; {_AGAIN}"
        )
    if _ENDED.search(said):
        return (
            f"another process of this training ended ({line}); its own message comes before this one, or on its "
            f"machine; {_AGAIN}"
        )
    if _SILENT.search(said):
        return (
            f"another process of this training does not answer ({line}): it hangs, is far behind, or its machine is "
            f"gone; look at the log there; {_AGAIN}"
        )
    if _APART.search(said):
        return (
            f"the processes of this training do not reach each other at MASTER_ADDR={address}, MASTER_PORT={port} "
            f"({line}); start all of them, and check that name, port and firewall; {_AGAIN}"
        )
    if "NCCL" in said:
        return f"NCCL failed ({line}); NCCL_DEBUG=INFO makes it say why; {_AGAIN}"
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
