"""Files of checkpoints are written by threads of the training, as Megatron-Core does it itself from 0.17 on.

Earlier releases fork a process for every file, and keep another one to hand over what these say. Whoever kills one of
them, as a system short of memory does, leaves training waiting for it without end; and where training is killed, they
stay behind, with its memory and with the lock on the run's folder.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from nemo_reasoning.backend.patching import Patch

_FORKING = "write_preloaded_data_multiproc"


def _write(
    transforms: list[Any], use_msc: bool, rank: int, buckets: Sequence[Any], results: "SimpleQueue[Any]"
) -> None:
    """Write each bucket to its file; put what was written by number of the bucket, or the first error, in `results`."""
    from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync

    def write_one(numbered: tuple[int, Any]) -> tuple[int, Any]:
        written: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        options = {"use_msc": True} if use_msc else {}
        FileSystemWriterAsync.write_preloaded_data(transforms, *numbered, written, _Unwatched(), True, **options)
        return written.get_nowait()

    with ThreadPoolExecutor(len(buckets)) as pool:
        found = dict(pool.map(write_one, enumerate(buckets)))
    errors = (outcome for outcome in found.values() if isinstance(outcome, Exception))
    results.put(next(errors, found))


class _Unwatched:
    """What a writer ticks off when it is done, where nobody waits for that."""

    def get(self) -> None:
        pass

    def task_done(self) -> None:
        pass


def _threads() -> Sequence[tuple[Any, str, Any]]:
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    if not hasattr(filesystem_async.FileSystemWriterAsync, _FORKING):
        return []
    return [
        (filesystem_async.FileSystemWriterAsync, _FORKING, staticmethod(_write)),
        (filesystem_async, "_get_write_results_queue", SimpleQueue),
    ]


# For the length of a save; one without it reads the same files.
WRITTEN_HERE = Patch(
    "checkpoint-files", "megatron.core.dist_checkpointing.strategies.filesystem_async forks writers", _threads
)
