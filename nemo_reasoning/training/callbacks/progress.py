"""What the user sees while a run trains."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from nemo_reasoning.training.callbacks.metrics import MetricsRecorder

_GIB = 1024**3


def duration(seconds: float) -> str:
    """Return a duration as 42s, 3m05s or 2h07m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


_FORMATS: dict[str, Callable[[float], str]] = {
    "loss": lambda value: f"loss {value:.4f}",
    "val_loss": lambda value: f"val_loss {value:.4f}",
    "lr": lambda value: f"lr {value:.2e}",
    "tokens_per_second": lambda value: f"{value:,.0f} tok/s",
    "supervised_tokens_per_second": lambda value: f"{value:,.0f} supervised tok/s",
    "mfu": lambda value: f"MFU {value:.1%}",
    "vram_peak_bytes": lambda value: f"{value / _GIB:.1f} GiB VRAM",
    "rss_bytes": lambda value: f"{value / _GIB:.1f} GiB",
    "eta_seconds": lambda value: f"{duration(value)} left",
}


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Return the metrics a person follows, in a fixed order; absent ones are left out."""
    hidden = {"rss_bytes"} if "vram_peak_bytes" in metrics else set()
    return "  ".join(show(metrics[name]) for name, show in _FORMATS.items() if name in metrics.keys() - hidden)


class _Bar(Progress):
    """A bar with the metrics on a line of their own, where a narrow terminal can wrap them."""

    metrics = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self.metrics)


class ProgressDisplay(Callback):
    """A live bar where the stream is a terminal, else one line every N steps.

    Redrawn by the training loop itself: a drawing thread could hold a lock while the process forks.
    """

    def __init__(self, *, recorder: MetricsRecorder, stream: TextIO, every_n_steps: int) -> None:
        """Show what `recorder` gathered; it must come earlier in `trainer.callbacks`.

        Args:
            recorder: Source of the metrics.
            stream: Where to write; what `quiet_output` yields, or stdout.
            every_n_steps: Steps between lines where `stream` is no terminal.
        """
        self._recorder = recorder
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=not stream.isatty())
        self._every_n_steps = every_n_steps
        self._progress: _Bar | None = None
        self._active = True

    def show(self, line: str) -> None:
        """Print a line for the user, above the bar if there is one."""
        if self._active:
            self._console.print(line)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep every rank but the first silent."""
        self._active = trainer.is_global_zero

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the bar."""
        if trainer.global_step:
            self.show(f"resuming after step {trainer.global_step}")
        if self._active and self._console.is_terminal:
            self._progress = _Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self._console,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            total = trainer.max_steps if trainer.max_steps > 0 else None
            self._progress.add_task("training", total=total, completed=trainer.global_step)
            self._progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraw, or print a line."""
        step = trainer.global_step
        if self._progress is not None:
            self._draw("training", step)
        elif step % self._every_n_steps == 0 or step in (1, trainer.max_steps):
            total = f"/{trainer.max_steps}" if trainer.max_steps > 0 else ""
            self.show(f"step {step}{total}  {format_metrics(self._recorder.latest)}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say why the steps pause."""
        self._draw("validation", trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the validation loss."""
        self._draw("training", trainer.global_step)
        if self._progress is None and not trainer.sanity_checking and "val_loss" in self._recorder.latest:
            self.show(f"step {trainer.global_step}  val_loss {self._recorder.latest['val_loss']:.4f}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the finished bar on the screen."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back before the traceback."""
        self._stop()

    def _draw(self, description: str, step: int) -> None:
        if self._progress is not None:
            self._progress.metrics = format_metrics(self._recorder.latest)
            self._progress.update(self._progress.task_ids[0], description=description, completed=step)
            self._progress.refresh()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
