"""As many threads as other processes leave cores for."""

import logging
import os
import time
from pathlib import Path
from typing import Any

import psutil
import torch

LOGGER = logging.getLogger(__name__)
_STAT = Path("/proc/stat")
_PERIOD = 0.5  # seconds between two looks at the machine


def threads_for(*, most: int, cores: int, others: float) -> int:
    """Return how many threads to compute with.

    After every operation threads wait for one another: one whose core somebody else has keeps all of them waiting.

    Args:
        most: Threads on an idle machine.
        cores: Cores that this process may use.
        others: How many of them other processes keep busy, on average.
    """
    return max(1, min(most, int(cores - others + 0.5)))


class SpareCores:
    """Sets how many threads torch computes with on the thread that calls it.

    Where the system does not tell how busy the cores are, that is said once in the log, and all threads are used.
    """

    def __init__(self) -> None:
        """Look at the machine for the first time."""
        self._most = self._threads = torch.get_num_threads()
        self._cores = (
            sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        )
        self._seen = self._look()

    def adapt(self) -> None:
        """Follow what other processes do, every half second; does nothing in between."""
        if self._seen is None:
            return
        before, others = self._seen
        if time.monotonic() - before < _PERIOD:
            return
        self._seen = self._look()
        if self._seen is None:
            self._use(self._most)
            return
        now, others_now = self._seen
        share = (others_now - others) / (now - before)
        self._use(threads_for(most=self._most, cores=len(self._cores), others=share))

    def _use(self, threads: int) -> None:
        if threads != self._threads:
            torch.set_num_threads(threads)
            self._threads = threads

    def _look(self) -> tuple[float, float] | None:
        """Return the time, and the seconds that other processes have computed on these cores; None if untold."""
        kinds = ("user", "nice", "system", "steal")
        try:
            times, own = _times_by_core(), psutil.Process().cpu_times()
            busy = sum(getattr(times[core], kind, 0.0) for core in self._cores for kind in kinds)
        except (psutil.Error, OSError, LookupError, ValueError) as error:
            LOGGER.warning(
                "the system does not tell how busy cores %s are (%s: %s): %d threads compute, whatever else runs; "
                "where others need the cores, set OMP_NUM_THREADS",
                list(self._cores),
                type(error).__name__,
                error,
                self._most,
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
