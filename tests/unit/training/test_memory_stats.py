"""Memory readings of a real process."""

from mmap import mmap

import numpy as np
import pytest
import torch

from nemo_reasoning.training.memory_stats import MemoryUse, Phase, Vram, rss_peak

MIB = 1024**2
KERNEL_SLACK = 4 * MIB  # Linux adds up its per-CPU counters of resident pages now and then
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_memory_held_in_a_phase_is_seen_and_its_peak_stays() -> None:
    memory = Phase("block")
    before = memory.use.rss
    held = np.frombuffer(mmap(-1, 64 * MIB), dtype=np.uint8)  # fresh pages: malloc may have old ones left
    held[:] = 1
    during = memory.use.rss
    del held
    use = memory.close()

    assert during - before > 48 * MIB
    assert use.rss_peak >= during - KERNEL_SLACK
    assert rss_peak() >= during - KERNEL_SLACK


def test_a_closed_phase_keeps_its_reading() -> None:
    phase = Phase("one")
    use = phase.close()
    held = np.ones(32 * MIB, dtype=np.uint8)

    assert phase.use is use
    assert phase.close() is use
    assert len(held) == 32 * MIB


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
    outer = Phase("outer")
    first = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
    del first
    inner = Phase("inner")
    second = torch.empty(16 * MIB, dtype=torch.uint8, device="cuda")
    del second
    inside, outside = inner.close().vram, outer.close().vram

    assert inside is not None
    assert outside is not None
    assert outside.peak - inside.peak >= 48 * MIB
