"""What the user sees while a run trains."""

from collections.abc import Callable, Iterable, Mapping
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from nemo_reasoning.training.callbacks.base import UNKNOWN_LENGTH, Callback, Loop, RunContext, StepRecord, Validation

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

    position = 50

    def __init__(
        self, console: Console, *, show: Callable[[str], None], every_n_steps: int, fitted: bool = False
    ) -> None:
        """Take where to draw.

        Args:
            console: The terminal, or what stands for it.
            show: Prints a line, above the bar if there is one.
            every_n_steps: Steps between lines where `console` is no terminal.
            fitted: Whether `trainer.hours` estimates the number of steps while the run trains.
        """
        self._console, self._show, self._every_n_steps, self._fitted = console, show, every_n_steps, fitted
        self._latest: dict[str, float] = {}
        self._progress: _Bar | None = None

    @classmethod
    def from_run(cls, context: RunContext) -> Self:
        """Show every `callbacks.progress_interval`-th step."""
        settings = context.run.settings
        return cls(
            context.console,
            show=context.show,
            every_n_steps=settings.callbacks.progress_interval,
            fitted=settings.trainer.hours is not None,
        )

    def on_start(self, loop: Loop) -> None:
        """Say where the run goes on, and draw the bar."""
        if loop.step:
            total = self._total(loop)
            self._show(f"resuming after step {loop.step}" + ("" if total is None else f" of {total}"))
        if loop.first_rank and self._console.is_terminal:
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
            self._progress.add_task("training", total=self._total(loop), completed=loop.step)
            self._progress.start()

    def on_step_end(self, loop: Loop, record: StepRecord) -> None:
        """Redraw, or print a line."""
        self._latest |= record.metrics
        total = self._total(loop)
        if total is None:
            self._latest.pop("eta_seconds", None)
        if self._progress is not None:
            self._draw("training", loop)
        elif record.step % self._every_n_steps == 0 or record.step in (1, loop.max_steps):
            of = "" if total is None else f"/{total}"
            self._show(f"step {record.step}{of}  {format_metrics(self._latest)}")

    def on_validation_start(self, loop: Loop) -> None:
        """Say why the steps pause."""
        self._draw("validation", loop)

    def on_validation_end(self, loop: Loop, validation: Validation) -> None:
        """Show the validation loss."""
        if validation.loss is not None:
            self._latest["val_loss"] = validation.loss
        self._draw("training", loop)
        if self._progress is None:
            loss = "no number" if validation.loss is None else f"{validation.loss:.4f}"
            self._show(f"step {validation.step}  val_loss {loss}")

    def on_end(self, loop: Loop) -> None:
        """Leave the finished bar on the screen."""
        self._stop()

    def on_error(self, loop: Loop, error: BaseException) -> None:
        """Give the terminal back before what is said about the error."""
        self._stop()

    def _total(self, loop: Loop) -> int | None:
        """Return the steps of the whole run; None while they are not known."""
        return None if self._fitted and loop.max_steps == UNKNOWN_LENGTH else loop.max_steps

    def _draw(self, description: str, loop: Loop) -> None:
        if self._progress is not None:
            self._progress.metrics = format_metrics(self._latest)
            task = self._progress.task_ids[0]
            self._progress.update(task, description=description, completed=loop.step, total=self._total(loop))
            self._progress.refresh()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
