"""Where metrics go: metrics.jsonl always, TensorBoard, W&B or MLflow by name."""

import json
import math
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from nemo_reasoning.artifacts import fingerprint, write_text
from nemo_reasoning.config.train import LoggerBackend
from nemo_reasoning.errors import ConfigError

METRICS_FILE = "metrics.jsonl"


class Record(dict[str, float]):
    """Metrics of one optimiser step.

    Lightning writes to its loggers of its own accord, with steps that count from 0 and validation
    one step early. Our loggers take records and nothing else, so each step appears once.
    """


class JsonlLogger(Logger):
    """One JSON object a line: {"step": 12, "loss": 1.25, ...}; numbers JSON cannot hold become null."""

    def __init__(self, path: Path) -> None:
        """Append to `path`; the file is opened with the first record."""
        super().__init__()
        self.path = path
        self._file: TextIO | None = None

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "jsonl"

    @property
    def version(self) -> str:
        """Nothing: a run has one file, also across restarts."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run folder's config.yaml holds the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a record; a line is complete on disk, or at least with the kernel, when this returns."""
        if not isinstance(metrics, Record):
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8", buffering=1)
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")

    @rank_zero_only
    def resume_from(self, step: int) -> None:
        """Drop what a killed run wrote after the checkpoint of `step`; 0 starts an empty file."""
        self.finalize("resumed")  # the file is about to be replaced under an open handle
        drop_records_after(self.path, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class RecordsOnly(Logger):
    """Another logger, shielded from what Lightning writes of its own accord."""

    def __init__(self, inner: Logger) -> None:
        """Pass records on to `inner`."""
        super().__init__()
        self.inner = inner

    @property
    def name(self) -> str | None:
        """Name the inner logger gives itself."""
        return self.inner.name

    @property
    def version(self) -> int | str | None:
        """Version of the inner logger."""
        return self.inner.version

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Pass the settings on."""
        self.inner.log_hyperparams(params, *args, **kwargs)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Pass a record on."""
        if isinstance(metrics, Record):
            self.inner.log_metrics(dict(metrics), step)

    def save(self) -> None:
        """Flush the inner logger."""
        self.inner.save()

    def finalize(self, status: str) -> None:
        """End the inner logger's run."""
        self.inner.finalize(status)


def build_loggers(*, backend: LoggerBackend, folder: Path, run_name: str, project: str) -> list[Logger]:
    """Return the loggers of a run: `folder`/metrics.jsonl, and `backend`'s.

    Args:
        backend: The other place metrics go.
        folder: Of the run. It also identifies the run to W&B, so that a restart continues it.
        run_name: Shown by W&B and MLflow.
        project: W&B project, or MLflow experiment.

    Raises:
        ConfigError: The backend's package is not installed.
    """
    loggers: list[Logger] = [JsonlLogger(folder / METRICS_FILE)]
    if backend is LoggerBackend.none:
        return loggers
    builders: dict[LoggerBackend, Callable[[], Logger]] = {
        LoggerBackend.tensorboard: lambda: TensorBoardLogger(folder, name="tensorboard", version=""),
        LoggerBackend.wandb: lambda: WandbLogger(
            name=run_name,
            project=project,
            save_dir=folder,
            id=fingerprint(str(folder.resolve())),
            resume="allow",
        ),
        LoggerBackend.mlflow: lambda: MLFlowLogger(project, run_name=run_name, save_dir=str(folder / "mlflow")),
    }
    try:
        return [*loggers, RecordsOnly(builders[backend]())]
    except ImportError as error:
        raise ConfigError(
            f"logger={backend.value}, but its package is not installed ({error}); "
            f"run `pip install {backend.value}` or set logger=none"
        ) from error


def drop_records_after(path: Path, *, step: int) -> None:
    """Keep the lines of a JSON Lines file up to `step`, and none for step 0; rewrites it atomically.

    A last line without its end, as a kill leaves it, goes too. A missing file stays missing.
    """
    if path.exists():
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step] if step else []
        write_text(path, "".join(kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return one dictionary per step in order; training and validation write separate lines of a step."""
    merged: dict[int, dict[str, Any]] = {}
    for line in _whole_lines(path):
        record = json.loads(line)
        merged.setdefault(record["step"], {}).update(record)
    return [merged[step] for step in sorted(merged)]


def _whole_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]
