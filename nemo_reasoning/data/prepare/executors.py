"""Run one function on many inputs in processes on this machine. Results keep their order."""

import gc
import multiprocessing
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from typing import Any, TypeVar

from nemo_reasoning.errors import DataError
from nemo_reasoning.packages import patched_environment

Input = TypeVar("Input")
Output = TypeVar("Output")
Job = TypeVar("Job")
_WAITING = 4  # finished or queued inputs of each worker

# Tokenising needs no torch, whose import takes five times as long and as much memory as all the rest.
WITHOUT_TORCH = {"USE_TORCH": "0", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}

_function: Callable[[Any], Any]


def run(function: Callable[[Input], Output], inputs: Sequence[Input], *, workers: int | None) -> Iterator[Output]:
    """Yield the function's result for each input, in their order.

    Args:
        function: Can be pickled; each worker gets its own copy, once.
        inputs: Can be pickled.
        workers: How many; None for one per core.

    Raises:
        DataError: A worker was killed.
    """
    count = min(workers or _cores(), len(inputs))
    return map(function, inputs) if count <= 1 else _in_processes(function, inputs, count)


def _cores() -> int:
    """Return the cores this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_processes(function: Callable[[Input], Output], inputs: Sequence[Input], workers: int) -> Iterator[Output]:
    start_server()
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(pickle.dumps(function),)) as pool:
        try:
            yield from in_order(
                inputs, lambda value: pool.submit(_call, value), Future.result, Future.cancel, most=_WAITING * workers
            )
        except BrokenProcessPool as error:
            raise DataError(
                "a worker was killed, most likely for want of memory; choose fewer data.workers or a smaller "
                "data.shard_mb, then run again: finished parts are kept"
            ) from error


def in_order(
    inputs: Iterable[Input],
    begin: Callable[[Input], Job],
    result: Callable[[Job], Any],
    cancel: Callable[[Job], object],
    *,
    most: int,
) -> Iterator[Any]:
    """Yield the results of jobs in the order of their inputs, with at most so many begun; the rest is canceled."""
    begun: deque[Job] = deque()
    try:
        for value in inputs:
            begun.append(begin(value))
            if len(begun) >= most:
                yield result(begun.popleft())
        while begun:
            yield result(begun.popleft())
    finally:
        for job in begun:
            cancel(job)


def start_server() -> None:
    """Start the process that workers are forked from, if it does not run; it imports what they need meanwhile."""
    multiprocessing.set_forkserver_preload(["nemo_reasoning.data.prepare.worker"])
    with patched_environment(WITHOUT_TORCH):
        forkserver.ensure_running()


def load(function: bytes) -> Callable[[Any], Any]:
    """Make this process a worker, and return the function that it gets its inputs for."""
    os.environ.update(WITHOUT_TORCH)
    os.environ["RAYON_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # the processes are the parallelism
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    loaded: Callable[[Any], Any] = pickle.loads(function)  # noqa: S301 - of the process that started this one
    gc.freeze()  # what is imported stays: collecting garbage need not look at it again and again
    return loaded


def _start(function: bytes) -> None:
    global _function
    _function = load(function)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave when the process that wants the results was killed; a pool's workers would wait for more without end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(value: Any) -> Any:
    return _function(value)
