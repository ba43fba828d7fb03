"""As many threads as other processes leave cores for."""

import os
import time

import psutil
import torch

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
    """Sets how many threads torch computes with on the thread that calls it."""

    def __init__(self) -> None:
        """Look at the machine for the first time."""
        self._most, self._process = torch.get_num_threads(), psutil.Process()
        self._cores = (
            sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        )
        self._threads = self._most
        self._seen = self._look()

    def adapt(self) -> None:
        """Follow what other processes do, every half second; does nothing in between."""
        before, others = self._seen
        if time.monotonic() - before < _PERIOD:
            return
        self._seen = now, others_now = self._look()
        share = (others_now - others) / (now - before)
        threads = threads_for(most=self._most, cores=len(self._cores), others=share)
        if threads != self._threads:
            torch.set_num_threads(threads)
            self._threads = threads

    def _look(self) -> tuple[float, float]:
        """Return the time, and the seconds that other processes have computed on these cores."""
        every, own = psutil.cpu_times(percpu=True), self._process.cpu_times()
        kinds = ("user", "nice", "system", "steal")
        busy = sum(getattr(every[core], kind, 0.0) for core in self._cores for kind in kinds)
        return time.monotonic(), busy - own.user - own.system
