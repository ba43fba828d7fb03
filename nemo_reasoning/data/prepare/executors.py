"""Run one function on many inputs: in processes on this machine, or on a Ray cluster. Results keep their order."""

import gc
import multiprocessing
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Any, TypeVar

from nemo_reasoning.config.data import Executor
from nemo_reasoning.errors import DataError

Input = TypeVar("Input")
Output = TypeVar("Output")
_WAITING = 4  # finished or queued inputs of each worker

# Tokenising needs no torch, whose import takes five times as long and as much memory as all the rest.
WITHOUT_TORCH = {"USE_TORCH": "0", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}

_function: Callable[[Any], Any]


def run(
    function: Callable[[Input], Output], inputs: Sequence[Input], *, engine: Executor, workers: int | None
) -> Iterator[Output]:
    """Yield the function's result for each input, in their order.

    Args:
        function: Can be pickled; each worker gets its own copy, once.
        inputs: Can be pickled.
        engine: What runs the workers.
        workers: How many; None for one per core.

    Raises:
        DataError: A worker was killed.
    """
    if engine is Executor.ray:
        return _on_ray(function, inputs, workers)
    count = min(workers or _cores(), len(inputs))
    return map(function, inputs) if count <= 1 else _in_processes(function, inputs, count)


def _cores() -> int:
    """Return the cores this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_processes(function: Callable[[Input], Output], inputs: Sequence[Input], workers: int) -> Iterator[Output]:
    start_server()
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(pickle.dumps(function),)) as pool:
        waiting: deque[Future[Any]] = deque()
        try:
            for value in inputs:
                waiting.append(pool.submit(_call, value))
                if len(waiting) >= _WAITING * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                "a worker was killed, most likely for want of memory; choose fewer data.workers or a smaller "
                "data.shard_mb, then run again: finished parts are kept"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def start_server() -> None:
    """Start the process that workers are forked from, if it does not run; it imports what they need meanwhile."""
    multiprocessing.set_forkserver_preload(["nemo_reasoning.data.prepare.worker"])
    with patched_environment(WITHOUT_TORCH):
        forkserver.ensure_running()


@contextmanager
def patched_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(function: bytes) -> None:
    global _function
    os.environ.update(WITHOUT_TORCH)
    os.environ["RAYON_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # the processes are the parallelism
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _function = pickle.loads(function)  # noqa: S301 - of the process that started this one
    gc.freeze()  # what is imported stays: collecting garbage need not look at it again and again
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave when the process that wants the results was killed; a pool's workers would wait for more without end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(value: Any) -> Any:
    return _function(value)


def _on_ray(function: Callable[[Input], Output], inputs: Sequence[Input], workers: int | None) -> Iterator[Output]:
    """Run on the cluster that RAY_ADDRESS names, or on a local one."""
    import ray
    from ray.data import DataContext

    if not inputs:
        return
    if not ray.is_initialized():
        ray.init(
            log_to_driver=False, include_dashboard=False, num_cpus=workers if "RAY_ADDRESS" not in os.environ else None
        )
    context = DataContext.get_current()
    context.execution_options.preserve_order, context.enable_progress_bars = True, False
    rows = [{"value": pickle.dumps(value)} for value in inputs]
    size = min(workers or int(ray.cluster_resources()["CPU"]), len(rows))
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _RayWorker, fn_constructor_args=(pickle.dumps(function),), concurrency=size
    )
    for row in dataset.iter_rows():
        yield pickle.loads(row["value"])  # noqa: S301 - of a worker of ours


class _RayWorker:
    def __init__(self, function: bytes) -> None:
        _start(function)

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        return {"value": pickle.dumps(_call(pickle.loads(row["value"])))}  # noqa: S301 - of the process that asks
