"""Memory readings of a real process."""

from mmap import mmap

import numpy as np
import pytest
import torch

from nemo_reasoning.training.memory_stats import MemoryUse, Phase, Vram, rss_peak, track_memory

MIB = 1024**2
KERNEL_SLACK = 4 * MIB  # Linux adds up its per-CPU counters of resident pages now and then
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_memory_held_in_a_block_is_seen_and_its_peak_stays() -> None:
    with track_memory("block") as memory:
        before = memory.use.rss
        held = np.frombuffer(mmap(-1, 64 * MIB), dtype=np.uint8)  # fresh pages: malloc may have old ones left
        held[:] = 1
        during = memory.use.rss
        del held

    assert during - before > 48 * MIB
    assert memory.use.rss_peak >= during - KERNEL_SLACK
    assert rss_peak() >= during - KERNEL_SLACK


def test_a_closed_phase_keeps_its_reading() -> None:
    phase = Phase("one")
    use = phase.close()
    held = np.ones(32 * MIB, dtype=np.uint8)

    assert phase.use is use
    assert phase.close() is use
    assert len(held) == 32 * MIB


def test_a_failing_block_closes_its_phase() -> None:
    with pytest.raises(KeyError), track_memory("block"):
        raise KeyError

    assert Phase._open == []


def test_metrics_carry_the_documented_names() -> None:
    vram = Vram(allocated=60, reserved=80, peak=70)
    use = MemoryUse(phase="validation", rss=5, rss_peak=6, vram=vram)

    assert use.metrics(prefix="validation/") == {
        "validation/rss_bytes": 5,
        "validation/rss_peak_bytes": 6,
        "validation/vram_allocated_bytes": 60,
        "validation/vram_reserved_bytes": 80,
        "validation/vram_peak_bytes": 70,
        "validation/vram_fragmentation": 0.25,
    }
    assert set(MemoryUse(phase="step", rss=5, rss_peak=6, vram=None).metrics()) == {
        "rss_bytes",
        "rss_peak_bytes",
    }


def test_nothing_reserved_is_not_fragmented() -> None:
    assert Vram(allocated=0, reserved=0, peak=0).fragmentation == 0


@needs_cuda
def test_nested_phases_keep_their_own_peaks() -> None:
    with track_memory("outer") as outer:
        first = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
        del first
        with track_memory("inner") as inner:
            second = torch.empty(16 * MIB, dtype=torch.uint8, device="cuda")
            del second

    assert outer.use.vram is not None
    assert inner.use.vram is not None
    assert outer.use.vram.peak - inner.use.vram.peak >= 48 * MIB
