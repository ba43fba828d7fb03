"""How long a run will take and what it will cost: predicted, or from the steps that it has measured already."""

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from nemo_reasoning.artifacts import read_steps
from nemo_reasoning.config.model import Architecture
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.config.trainer import Accelerator
from nemo_reasoning.models.gpus import GPUS, find_gpu
from nemo_reasoning.training.checkpoints import METRICS_FILE
from nemo_reasoning.training.memory.workload import workload_of
from nemo_reasoning.training.step_time import Rows, step_seconds

_RECENT = 100  # steps


@dataclass(frozen=True)
class Forecast:
    """The speed of a run.

    Attributes:
        step_seconds: Of an optimizer step.
        tokens: Of a step, over all replicas.
        at_most: Whether `tokens` counts every row at its longest, since nobody knows better before the data are read.
        source: Where the speed comes from, in words.
        devices: GPUs that are paid for.
        price_per_hour: Of one of them.
        rows: Of a step.
    """

    step_seconds: float
    tokens: float
    at_most: bool
    source: str
    devices: int
    price_per_hour: float | None
    rows: int

    def speed(self) -> str:
        """Say how fast it is."""
        length = "of full length" if self.at_most else "of average length"
        return (
            f"{self.step_seconds:.3g} s a step of {self.rows} rows {length}, "
            f"{self.tokens / self.step_seconds:,.0f} tokens/s ({self.source})"
        )

    def duration(self, steps: int) -> str:
        """Say how long so many steps take, and what they cost."""
        hours = steps * self.step_seconds / 3600
        return f"{_shown(hours)} for {steps:,} steps{self._cost(hours)}, without validation, measuring and export"

    def filling(self, hours: float) -> str:
        """Say how many steps and rows a time has room for."""
        steps = max(1, int(3600 * hours / self.step_seconds))
        return f"about {steps:,} steps, or {steps * self.rows:,} rows{self._cost(hours)}"

    def _cost(self, hours: float) -> str:
        if self.price_per_hour is None:
            return ""
        return f", cost {hours * self.devices * self.price_per_hour:,.2f} at {self.price_per_hour:g} an hour and GPU"


def told(settings: SftSettings, found: Forecast | None) -> str | None:
    """Return the speed in words, or why it is not predicted; None on a CPU before the first step."""
    if found is not None:
        return found.speed()
    if settings.hardware.accelerator is Accelerator.cpu:
        return None
    if settings.loss.pairs:
        return (
            "not predicted: a step of loss=dpo computes its reference too, which the model of the time does not count"
        )
    if find_gpu(settings.hardware.gpu or "") is None:
        known = ", ".join(gpu.name.partition("|")[0].replace(".*", " ").strip() for gpu in GPUS)
        return f"not predicted: no data sheet is known of hardware.gpu={settings.hardware.gpu}, but of {known}"
    return f"not predicted: hardware.gpu={settings.hardware.gpu} has no tensor cores for this precision"


def _shown(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def forecast(settings: SftSettings, shape: Architecture) -> Forecast | None:
    """Return the speed of a run whose micro-batch and recompute are chosen; None where nothing tells it.

    What the run has measured counts, where its folder holds steps; else the prediction for its GPU.
    """
    trainer, data = settings.trainer, settings.data
    longest = trainer.seq_length
    length = min(data.tokens_per_row or longest, longest) if trainer.packing else longest
    source, seconds = "measured in the run's folder", _measured_seconds(settings.output_dir)
    if seconds is None:
        gpu = find_gpu(settings.hardware.gpu or "")
        if gpu is None or settings.loss.pairs:
            return None
        source = f"a prediction for {settings.hardware.gpu}, see docs/results/step_time.md"
        work = replace(workload_of(settings, shape), seq_length=length)
        rows = Rows(tokens=work.positions, length=length)
        micro_batches = trainer.global_batch_size // (trainer.micro_batch_size * trainer.data_parallel_size)
        seconds = step_seconds(work, gpu, rows, micro_batches=micro_batches)
    if seconds is None:
        return None
    return Forecast(
        step_seconds=seconds,
        tokens=trainer.global_batch_size * length,
        at_most=data.tokens_per_row is None,
        source=source,
        devices=trainer.devices * trainer.num_nodes,
        price_per_hour=settings.hardware.price_per_hour,
        rows=trainer.global_batch_size,
    )


def _measured_seconds(folder: str) -> float | None:
    """Return the median seconds of the last steps that a run has recorded, or None if it has none."""
    records, _ = read_steps(Path(folder).expanduser() / METRICS_FILE)
    seconds = [record["step_seconds"] for record in records if "step_seconds" in record]
    return median(seconds[-_RECENT:]) if seconds else None
