"""How fast training goes."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from nemo_reasoning.data.counts import BatchCounts
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.training.callbacks.gpu_peaks import peak_bf16_flops
from nemo_reasoning.training.callbacks.metrics import MetricSource

WINDOW = 100
_NOTHING = BatchCounts(samples=0, tokens=0, nonpad_tokens=0, supervised_tokens=0)


@runtime_checkable
class CountsBatches(Protocol):
    """A data module that knows the size of every global batch."""

    def batch_counts(self, step: int) -> BatchCounts:
        """Return the sizes of the batch of `step`, counted from 0, over all data-parallel ranks."""


@dataclass(frozen=True)
class Totals:
    """What this process trained on.

    Attributes:
        steps: Optimiser steps.
        seconds: Time inside steps, without validation, checkpoints and samples.
        counts: Sizes of all batches.
    """

    steps: int = 0
    seconds: float = 0.0
    counts: BatchCounts = _NOTHING

    def plus(self, counts: BatchCounts, seconds: float) -> "Totals":
        """Return the totals with one step more."""
        names = [field.name for field in fields(counts)]
        summed = BatchCounts(**{name: getattr(self.counts, name) + getattr(counts, name) for name in names})
        return Totals(steps=self.steps + 1, seconds=self.seconds + seconds, counts=summed)

    @property
    def supervised_tokens_per_second(self) -> float:
        """Mean rate over the steps; 0 before the first."""
        return self.counts.supervised_tokens / self.seconds if self.seconds else 0.0


def rates(counts: BatchCounts, *, seconds: float) -> dict[str, float]:
    """Return what a step of `seconds` processed per second, padding included in tokens_per_second."""
    return {
        "tokens_per_second": counts.tokens / seconds,
        "nonpad_tokens_per_second": counts.nonpad_tokens / seconds,
        "supervised_tokens_per_second": counts.supervised_tokens / seconds,
        "samples_per_second": counts.samples / seconds,
    }


class ThroughputMonitor(MetricSource):
    """Measures each step from its start to its end, with the GPU waited for.

    Rates are those of the step; p50 and p95 are over the last `WINDOW` steps. MFU is the model FLOPs
    per second over the dense bf16 peak of all GPUs, left out where that peak is not known. The time
    left counts everything that happened between steps so far, validation included.

    Attributes:
        totals: Of the steps of this process.
    """

    def __init__(self, *, flops: Callable[[BatchCounts], float] | None) -> None:
        """Take `flops`: model FLOPs of a global batch (`models.flops.step_flops`); None leaves them out."""
        self.totals = Totals()
        self._flops = flops
        self._peak: float | None = None
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._metrics: dict[str, float] = {}
        self._run_began = self._step_began = 0.0

    def step_metrics(self) -> dict[str, float]:
        """Return the rates of the last step."""
        return self._metrics

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the data module's counts and the GPU's peak.

        Raises:
            ConfigError: The data module cannot tell how large its batches are.
        """
        if not isinstance(_datamodule(trainer), CountsBatches):
            raise ConfigError(
                f"{type(_datamodule(trainer)).__name__} has no batch_counts(step); "
                "add it to the data module or set callbacks.throughput=false"
            )
        if torch.cuda.is_available() and (peak := peak_bf16_flops(torch.cuda.get_device_name())):
            self._peak = peak * trainer.world_size
        self._run_began = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock."""
        self._step_began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock and work out the rates."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        seconds = now - self._step_began
        counts = _datamodule(trainer).batch_counts(trainer.global_step - 1)
        self.totals = self.totals.plus(counts, seconds)
        self._recent.append(seconds)
        self._metrics = rates(counts, seconds=seconds) | self._timing(seconds) | self._utilisation(counts, seconds)
        if trainer.max_steps > 0:
            left = trainer.max_steps - trainer.global_step
            self._metrics["eta_seconds"] = left * (now - self._run_began) / self.totals.steps

    def _timing(self, seconds: float) -> dict[str, float]:
        p50, p95 = np.percentile(self._recent, [50, 95])
        return {"step_seconds": seconds, "step_seconds_p50": float(p50), "step_seconds_p95": float(p95)}

    def _utilisation(self, counts: BatchCounts, seconds: float) -> dict[str, float]:
        if self._flops is None:
            return {}
        achieved = self._flops(counts) / seconds
        return {"flops_per_second": achieved} | ({"mfu": achieved / self._peak} if self._peak else {})


def _datamodule(trainer: Trainer) -> Any:
    return trainer.datamodule  # type: ignore[attr-defined]  # the trainer sets it in fit()
