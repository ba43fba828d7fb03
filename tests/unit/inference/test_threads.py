"""How many threads an engine computes with where other processes compute too."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from nemo_reasoning.inference.hf import threads
from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.inference.hf.threads import SpareCores, threads_for
from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.reasoning.messages import Message


@contextmanager
def all_threads(number: int) -> Iterator[None]:
    """Let this thread compute with a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("most", "cores", "others", "expected"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.3, 2),
        (2, 2, 0.5, 1),  # a process that computes without end, beside two threads that spin
        (2, 2, 1.9, 1),
        (1, 2, 0.0, 1),
        (8, 64, 20.0, 8),
        (32, 64, 40.2, 24),
    ],
)
def test_threads_are_those_that_find_a_core(most: int, cores: int, others: float, expected: int) -> None:
    assert threads_for(most=most, cores=cores, others=others) == expected


def test_the_machine_is_followed_and_the_caller_keeps_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [(0.0, 0.0), (1.0, 1.0), (2.0, 1.1)]  # seconds, and what others computed by then
    monkeypatch.setattr(SpareCores, "_look", lambda self: seen.pop(0))
    cores, computed = SpareCores(), []
    cores._cores = range(2)
    with all_threads(2):
        for now in (0.1, 1.0, 1.2, 2.0):
            monkeypatch.setattr(threads.time, "monotonic", lambda now=now: now)
            with cores.used():
                computed.append(torch.get_num_threads())
            assert torch.get_num_threads() == 2
    assert (computed, seen) == ([2, 1, 1, 2], [])


def test_generation_in_the_caller_follows_too(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpareCores, "_look", lambda self: (0.0, 0.0))
    monkeypatch.setattr(threads, "_PERIOD", 1e9)
    engine = HFEngine(random_model, dtype="float32", device="cpu")
    cores: SpareCores = engine.scheduler._threads.__self__  # type: ignore[attr-defined]
    cores._cores, cores._others = range(2), 1.0
    computed: set[int] = set()
    engine.model.model.register_forward_hook(lambda *_: computed.add(torch.get_num_threads()))
    with all_threads(2):
        engine.generate([GenerationRequest(messages=(Message("user", "?"),), mode="off", max_new_tokens=2)])
        assert torch.get_num_threads() == 2
    assert computed == {1}


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
    machine(monkeypatch, tmp_path, online={0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}, allowed={0, 1, 2, 3})
    cores = SpareCores()
    cores._others = 3.0
    machine(monkeypatch, tmp_path, online={0: 1.0, 1: 2.0}, allowed={0, 1, 2, 3})  # as in a container with fewer
    monkeypatch.setattr(threads, "_PERIOD", 0.0)
    with caplog.at_level(logging.WARNING), all_threads(4):
        for _ in range(2):
            with cores.used():
                assert torch.get_num_threads() == 4
    assert len(caplog.records) == 1
    assert "OMP_NUM_THREADS" in caplog.text
