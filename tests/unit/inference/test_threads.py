"""How many threads an engine computes with where other processes compute too."""

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from nemo_reasoning.inference.hf import threads
from nemo_reasoning.inference.hf.threads import SpareCores, threads_for


@pytest.mark.parametrize(
    ("most", "cores", "others", "expected"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.3, 2),
        (2, 2, 0.7, 1),
        (2, 2, 1.9, 1),
        (1, 2, 0.0, 1),
        (8, 64, 20.0, 8),
        (32, 64, 40.2, 24),
    ],
)
def test_threads_are_those_that_find_a_core(most: int, cores: int, others: float, expected: int) -> None:
    assert threads_for(most=most, cores=cores, others=others) == expected


def test_the_machine_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [(0.0, 0.0), (1.0, 1.0), (2.0, 1.1)]  # seconds, and what others computed by then
    set_to: list[int] = []
    monkeypatch.setattr(SpareCores, "_look", lambda self: seen.pop(0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    cores = SpareCores()
    cores._cores = range(2)
    for now in (0.1, 1.0, 1.2, 2.0):
        monkeypatch.setattr(threads.time, "monotonic", lambda now=now: now)
        cores.adapt()
    assert (set_to, seen) == ([1, 2], [])


def machine(monkeypatch: pytest.MonkeyPatch, folder: Path, *, online: dict[int, float], allowed: set[int]) -> None:
    """Let the system tell of cores by their numbers, with the seconds they were busy."""
    stat = folder / "stat"
    stat.write_text("cpu  1 0 0\n" + "".join(f"cpu{core} 1 0 0\n" for core in online) + "intr 7\n")
    times = [SimpleNamespace(user=busy) for busy in online.values()]
    monkeypatch.setattr(threads, "_STAT", stat)
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: times)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: allowed, raising=False)


def test_a_core_that_is_offline_shifts_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, online={0: 1e9, 1: 2e9, 3: 3e9}, allowed={0, 3})
    seen = SpareCores()._look()
    assert seen is not None
    assert seen[1] == pytest.approx(4e9, rel=1e-3)


def test_untold_cores_leave_all_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    machine(monkeypatch, tmp_path, online={0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}, allowed={0, 1, 2, 3})
    cores = SpareCores()
    cores._use(2)
    machine(monkeypatch, tmp_path, online={0: 1.0, 1: 2.0}, allowed={0, 1, 2, 3})  # as in a container with fewer
    monkeypatch.setattr(threads, "_PERIOD", 0.0)
    with caplog.at_level(logging.WARNING):
        cores.adapt()
        cores.adapt()
    assert set_to == [2, 4]
    assert len(caplog.records) == 1
    assert "OMP_NUM_THREADS" in caplog.text
