"""How many threads an engine computes with where other processes compute too."""

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
