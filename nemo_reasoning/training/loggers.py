"""Where metrics go: metrics.jsonl always, TensorBoard, W&B or MLflow by name."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

from nemo_reasoning.artifacts import read_steps, write_text
from nemo_reasoning.config.train import LoggerBackend
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.packages import pip_command
from nemo_reasoning.training.callbacks.base import Logger
from nemo_reasoning.training.checkpoints import METRICS_FILE

ID_FILE = "logger_id"


def run_id(folder: Path) -> str:
    """Return by what W&B and MLflow know a run: an id of its own, made at its first start and kept in its folder."""
    path = folder / ID_FILE
    if not path.is_file():
        write_text(path, uuid4().hex)
    return path.read_text(encoding="utf-8")


class JsonlLogger:
    """One JSON object a line: {"step": 12, "loss": 1.25, ...}; numbers JSON cannot hold become null."""

    def __init__(self, path: Path) -> None:
        """Append to `path`; the file is opened with the first record."""
        self.path = path
        self._file: TextIO | None = None

    def begin(self) -> None:
        """Nothing to do."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a record; a line is complete on disk, or at least with the kernel, when this returns."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8", buffering=1)
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")

    def resume_from(self, step: int) -> None:
        """Drop what a killed run wrote after the checkpoint of `step`; 0 starts an empty file."""
        self.close()  # the file is about to be replaced under an open handle
        drop_records_after(self.path, step=step)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class TensorBoard:
    """Event files under the run's `tensorboard`; a run that goes on writes over the steps it repeats."""

    def __init__(self, folder: Path) -> None:
        """Open the folder with the first record."""
        from torch.utils.tensorboard import SummaryWriter

        self._open: Callable[[], Any] = lambda: SummaryWriter(str(folder))
        self._writer: Any = None

    def begin(self) -> None:
        """Nothing to do."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point to the curve of each metric."""
        self._writer = self._writer or self._open()
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def resume_from(self, step: int) -> None:
        """Nothing to do: TensorBoard shows the latest value of a step."""

    def close(self) -> None:
        """Write what is pending."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class WeightsAndBiases:
    """A run of W&B, which a restart continues."""

    def __init__(self, *, name: str, project: str, folder: Path) -> None:
        """Take how the run is called; its id lies in its folder."""
        import wandb

        self._init: Callable[[], Any] = lambda: wandb.init(
            name=name, project=project, dir=str(folder), id=run_id(folder), resume="allow"
        )
        self._run: Any = None

    def begin(self) -> None:
        """Begin or continue the run."""
        self._run = self._init()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a row, with the step as a column: W&B's own counter cannot go back after a kill."""
        self._run.log({**metrics, "step": step})

    def resume_from(self, step: int) -> None:
        """Nothing to do: rows carry their step."""

    def close(self) -> None:
        """End this start of the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None


class MlFlow:
    """A run of MLflow, which a restart continues; in the run's `mlflow` unless MLFLOW_TRACKING_URI says otherwise."""

    def __init__(self, *, name: str, experiment: str, folder: Path) -> None:
        """Take how the run is called and where it is kept, in a folder of the run's; a tag knows it again."""
        import mlflow

        self._client, self._name, self._experiment, self._folder = mlflow, name, experiment, folder
        self._open = False

    def begin(self) -> None:
        """Begin or continue the run."""
        if "MLFLOW_TRACKING_URI" not in os.environ:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # what MLflow 3 asks of who wants no database
            self._client.set_tracking_uri(self._folder.resolve().as_uri())
        self._client.set_experiment(self._experiment)
        tags = {"nemo_reasoning_run": run_id(self._folder.parent)}
        ((key, value),) = tags.items()
        found = self._client.search_runs(
            experiment_names=[self._experiment],
            filter_string=f"tags.{key} = '{value}'",
            max_results=1,
            output_format="list",
        )
        if found:
            self._client.start_run(run_id=found[0].info.run_id)
        else:
            self._client.start_run(run_name=self._name, tags=tags)
        self._open = True

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step; MLflow takes no values that are no numbers."""
        self._client.log_metrics({name: value for name, value in metrics.items() if math.isfinite(value)}, step=step)

    def resume_from(self, step: int) -> None:
        """Nothing to do: MLflow keeps both values of a repeated step."""

    def close(self) -> None:
        """End the run."""
        if self._open:
            self._client.end_run()
            self._open = False


class OptionalLogger:
    """A logger beside metrics.jsonl: without it nothing begins, but its failures later on end nothing but itself."""

    def __init__(self, logger: Logger, name: str, *, show: Callable[[str], None]) -> None:
        """Take the logger, its name in conf/logger, and who tells the user."""
        self._logger, self._name, self._show, self._failed = logger, name, show, False

    def begin(self) -> None:
        """Begin.

        Raises:
            ConfigError: The service or the place cannot be used.
        """
        try:
            self._logger.begin()
        except Exception as error:
            raise ConfigError(
                f"logger={self._name} cannot begin ({_first_line(error)}); log in or repair its settings, or set "
                "logger=none"
            ) from error

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Pass the metrics on."""
        if not self._failed:
            self._attempt(lambda: self._logger.log(step, metrics))

    def resume_from(self, step: int) -> None:
        """Pass it on."""
        if not self._failed:
            self._attempt(lambda: self._logger.resume_from(step))

    def close(self) -> None:
        """Pass it on, also after a failure: what is open is to be ended."""
        self._attempt(self._logger.close)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            if not self._failed:
                self._show(
                    f"logger={self._name} failed ({_first_line(error)}); training goes on without it, and "
                    f"{METRICS_FILE} has everything"
                )
            self._failed = True


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def build_loggers(
    *, backend: LoggerBackend, folder: Path, run_name: str, project: str, show: Callable[[str], None] = print
) -> list[Logger]:
    """Return the loggers of a run: `folder`/metrics.jsonl, and `backend`'s.

    Args:
        backend: The other place metrics go.
        folder: Of the run.
        run_name: Shown by W&B and MLflow.
        project: W&B project, or MLflow experiment.
        show: Tells the user in a line.

    Raises:
        ConfigError: The backend's package is not installed.
    """
    loggers: list[Logger] = [JsonlLogger(folder / METRICS_FILE)]
    if backend is LoggerBackend.none:
        return loggers
    builders: dict[LoggerBackend, Callable[[], Logger]] = {
        LoggerBackend.tensorboard: lambda: TensorBoard(folder / "tensorboard"),
        LoggerBackend.wandb: lambda: WeightsAndBiases(name=run_name, project=project, folder=folder),
        LoggerBackend.mlflow: lambda: MlFlow(name=run_name, experiment=project, folder=folder / "mlflow"),
    }
    try:
        return [*loggers, OptionalLogger(builders[backend](), backend.value, show=show)]
    except ImportError as error:
        raise ConfigError(
            f"logger={backend.value}, but its package is not installed ({error}); "
            f"{pip_command(backend.value)}, or set logger=none"
        ) from error


def drop_records_after(path: Path, *, step: int) -> None:
    """Keep the lines of a JSON Lines file up to `step`, and none for step 0; rewrites it atomically.

    Lines that are no records of a step go too, as a kill leaves one. A missing file stays missing.
    """
    if path.exists():
        kept = [record for record in read_steps(path)[0] if record["step"] <= step] if step else []
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return one dictionary per step in order; training and validation write separate lines of a step."""
    merged: dict[int, dict[str, Any]] = {}
    for record in read_steps(path)[0]:
        merged.setdefault(record["step"], {}).update(record)
    return [merged[step] for step in sorted(merged)]
