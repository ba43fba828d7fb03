"""Memory of this process and of its GPU, now and at its highest within a phase."""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Vram:
    """Bytes of the current CUDA device as torch's allocator counts them.

    Attributes:
        allocated: Held by tensors.
        reserved: Taken from the driver: tensors and the allocator's cache.
        peak: Most held by tensors since the phase began.
    """

    allocated: int
    reserved: int
    peak: int

    @property
    def fragmentation(self) -> float:
        """Share of the reserved bytes that no tensor holds."""
        return 1 - self.allocated / self.reserved if self.reserved else 0.0


@dataclass(frozen=True)
class MemoryUse:
    """Memory at the end of a phase.

    Attributes:
        phase: Name of the phase.
        rss: Resident bytes of this process.
        rss_peak: Most resident bytes since the process began; the kernel keeps no peak per phase.
        vram: The GPU's side; None without CUDA.
    """

    phase: str
    rss: int
    rss_peak: int
    vram: Vram | None

    def metrics(self, *, prefix: str = "") -> dict[str, float]:
        """Return the values under the names that metrics.jsonl uses, each after `prefix`."""
        values: dict[str, float] = {"rss_bytes": self.rss, "rss_peak_bytes": self.rss_peak}
        if self.vram is not None:
            values |= {
                "vram_allocated_bytes": self.vram.allocated,
                "vram_reserved_bytes": self.vram.reserved,
                "vram_peak_bytes": self.vram.peak,
                "vram_fragmentation": self.vram.fragmentation,
            }
        return {prefix + name: value for name, value in values.items()}


def rss_peak() -> int:
    """Return the most resident bytes this process has had.

    Linux's VmHWM comes first, because `ru_maxrss` is inherited from the process that forked us.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Phase:
    """A stretch of work whose peak is its own, also while others are open around or inside it.

    CUDA keeps one peak per device, so every opening and closing first folds that peak into all open
    phases and then resets it.
    """

    _open: "list[Phase]" = []

    def __init__(self, name: str) -> None:
        """Begin the phase `name` now."""
        self.name = name
        self._vram_peak = 0
        self._closed: MemoryUse | None = None
        self._fold_peak()
        self._open.append(self)

    @property
    def use(self) -> MemoryUse:
        """Memory when the phase ended, or now while it lasts."""
        return self._closed or self._read()

    def close(self) -> MemoryUse:
        """End the phase and return its memory."""
        if self._closed is None:
            self._closed = self._read()
            self._open.remove(self)
        return self._closed

    def _read(self) -> MemoryUse:
        self._fold_peak()
        rss = psutil.Process().memory_info().rss
        return MemoryUse(phase=self.name, rss=rss, rss_peak=max(rss, rss_peak()), vram=self._read_vram())

    def _read_vram(self) -> Vram | None:
        if not torch.cuda.is_available():
            return None
        return Vram(
            allocated=torch.cuda.memory_allocated(),
            reserved=torch.cuda.memory_reserved(),
            peak=self._vram_peak,
        )

    @classmethod
    def _fold_peak(cls) -> None:
        if not torch.cuda.is_available():
            return
        peak = torch.cuda.max_memory_allocated()
        for phase in cls._open:
            phase._vram_peak = max(phase._vram_peak, peak)
        torch.cuda.reset_peak_memory_stats()
