"""As many threads as other processes leave cores for."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

LOGGER = logging.getLogger(__name__)
_STAT = Path("/proc/stat")
_PERIOD = 0.5  # seconds between two looks at the machine
_TAKEN = 0.4  # of a core: whoever would use a whole one gets half of it beside a thread that spins


def threads_for(*, most: int, cores: int, others: float) -> int:
    """Return how many threads to compute with.

    After every operation threads wait for one another, spinning: one whose core somebody else has keeps all of them
    waiting, and the more of them there are the less is left for those who are waited for.

    Args:
        most: Threads on an idle machine.
        cores: Cores that this process may use.
        others: How many of them other processes keep busy, on average.
    """
    return max(1, min(most, int(cores - others + _TAKEN)))


class SpareCores:
    """How many threads torch is to compute with, by what other processes leave.

    Where the system does not tell how busy the cores are, that is said once in the log, and all threads are used.
    """

    def __init__(self) -> None:
        """Look at the machine for the first time."""
        self._cores = (
            sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        )
        self._others = 0.0  # cores that other processes keep busy
        self._seen = self._look()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Compute with the threads that find a core, on the calling thread, which has all of them again behind it."""
        self._follow()
        most = torch.get_num_threads()
        threads = threads_for(most=most, cores=len(self._cores), others=self._others)
        if threads == most:
            yield
            return
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(most)

    def _follow(self) -> None:
        """Look at the machine again, every half second; do nothing in between."""
        if self._seen is None:
            return
        before, others = self._seen
        if time.monotonic() - before < _PERIOD:
            return
        self._seen = self._look()
        if self._seen is None:
            self._others = 0.0
            return
        now, others_now = self._seen
        self._others = (others_now - others) / (now - before)

    def _look(self) -> tuple[float, float] | None:
        """Return the time, and the seconds that other processes have computed on these cores; None if untold."""
        kinds = ("user", "nice", "system", "steal")
        try:
            times, own = _times_by_core(), psutil.Process().cpu_times()
            busy = sum(getattr(times[core], kind, 0.0) for core in self._cores for kind in kinds)
        except (psutil.Error, OSError, LookupError, ValueError) as error:
            LOGGER.warning(
                "the system does not tell how busy cores %s are (%s: %s): all threads compute, whatever else runs; "
                "where others need the cores, set OMP_NUM_THREADS",
                list(self._cores),
                type(error).__name__,
                error,
            )
            return None
        return time.monotonic(), busy - own.user - own.system


def _times_by_core() -> dict[int, Any]:
    """Return psutil's times by the kernel's number of a core: its list leaves out those that are offline.

    Raises:
        ValueError: The numbers and the times are of different cores.
    """
    every = psutil.cpu_times(percpu=True)
    if not _STAT.exists():  # not Linux
        return dict(enumerate(every))
    names = (line.split(maxsplit=1)[0] for line in _STAT.read_text().splitlines() if line.startswith("cpu"))
    return dict(zip((int(name[3:]) for name in names if name != "cpu"), every, strict=True))
