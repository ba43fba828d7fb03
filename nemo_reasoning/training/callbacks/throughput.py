"""How fast training goes, and what share of the GPU's peak that is."""

import time
from collections import deque
from collections.abc import Callable
from typing import Self

import numpy as np
import torch

from nemo_reasoning.models.flops import BatchCounts, step_flops
from nemo_reasoning.models.gpus import find_gpu
from nemo_reasoning.models.sizes import architecture_from_hf, flops_adapter_weights
from nemo_reasoning.training.callbacks.base import Callback, Loop, RunContext, StepRecord

WINDOW = 100


def rates(counts: BatchCounts, *, seconds: float) -> dict[str, float]:
    """Return what a step of `seconds` processed per second, padding included in tokens_per_second."""
    return {
        "tokens_per_second": counts.tokens / seconds,
        "nonpad_tokens_per_second": counts.nonpad_tokens / seconds,
        "supervised_tokens_per_second": counts.supervised_tokens / seconds,
        "samples_per_second": counts.samples / seconds,
    }


class ThroughputMonitor(Callback):
    """Measures each step from its start to its end, with the GPU waited for, and adds its rates to the record.

    Rates are those of the step; p50 and p95 are over the last `WINDOW` steps. MFU is the model FLOPs
    per second over the dense bf16 peak of all GPUs, left out where that peak is not known. The time
    left counts everything that happened between steps so far, validation included.
    """

    position = 30

    def __init__(self, *, counts: Callable[[int], BatchCounts], flops: Callable[[BatchCounts], float] | None) -> None:
        """Take what tells the work of a step.

        Args:
            counts: Sizes of the global batch of a step, counted from 0.
            flops: Model FLOPs of a global batch; None leaves them out.
        """
        self._counts, self._flops = counts, flops
        self._peak: float | None = None
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._steps = 0
        self._run_began = self._step_began = 0.0

    @classmethod
    def from_run(cls, context: RunContext) -> Self | None:
        """Measure unless `callbacks.throughput` is off."""
        settings = context.run.settings
        if not settings.callbacks.throughput:
            return None
        shape = settings.model.architecture or architecture_from_hf(context.inputs.tokenizer)
        adapter = flops_adapter_weights(shape, settings.peft)
        return cls(
            counts=context.batches.batch_counts,
            flops=lambda counts: step_flops(counts, shape=shape, adapter_weights=adapter),
        )

    def on_start(self, loop: Loop) -> None:
        """Find the GPUs' peak."""
        if torch.cuda.is_available() and (gpu := find_gpu(torch.cuda.get_device_name())):
            self._peak = gpu.bf16 * loop.world_size
        self._run_began = time.perf_counter()

    def on_step_start(self, loop: Loop) -> None:
        """Start the clock."""
        self._step_began = time.perf_counter()

    def on_step_end(self, loop: Loop, record: StepRecord) -> None:
        """Stop the clock and work out the rates."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        seconds, counts = now - self._step_began, self._counts(record.step - 1)
        self._steps += 1
        self._recent.append(seconds)
        record.metrics |= rates(counts, seconds=seconds) | self._timing(seconds) | self._utilization(counts, seconds)
        record.metrics["eta_seconds"] = (loop.max_steps - loop.step) * (now - self._run_began) / self._steps

    def _timing(self, seconds: float) -> dict[str, float]:
        p50, p95 = np.percentile(self._recent, [50, 95])
        return {"step_seconds": seconds, "step_seconds_p50": float(p50), "step_seconds_p95": float(p95)}

    def _utilization(self, counts: BatchCounts, seconds: float) -> dict[str, float]:
        if self._flops is None:
            return {}
        achieved = self._flops(counts) / seconds
        return {"flops_per_second": achieved} | ({"mfu": achieved / self._peak} if self._peak else {})
