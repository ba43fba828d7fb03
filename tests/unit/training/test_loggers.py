"""Loggers on disk."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nemo_reasoning.config.train import LoggerBackend
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.training.loggers import (
    METRICS_FILE,
    JsonlLogger,
    OptionalLogger,
    WeightsAndBiases,
    build_loggers,
    drop_records_after,
    read_metrics,
    run_id,
)


def write(path: Path, *steps: int) -> None:
    """Write one line for each step."""
    path.write_text("".join(json.dumps({"step": step, "loss": step / 10}) + "\n" for step in steps))


def steps_in(path: Path) -> list[int]:
    """Return the steps of all lines."""
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_record_is_on_disk_before_the_logger_is_closed(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / "run" / METRICS_FILE)
    logger.log(3, {"loss": 1.5, "lr": 0.25})

    assert logger.path.read_text() == '{"step": 3, "loss": 1.5, "lr": 0.25}\n'
    logger.close()


def test_numbers_json_lacks_become_null(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / METRICS_FILE)
    logger.log(1, {"loss": math.nan, "grad_norm": math.inf})
    logger.close()

    assert json.loads(logger.path.read_text()) == {"step": 1, "loss": None, "grad_norm": None}


def test_resuming_drops_later_records_and_appends_to_the_rest(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / METRICS_FILE)
    for step in range(1, 6):
        logger.log(step, {"loss": 1.0})
    logger.resume_from(3)
    logger.log(4, {"loss": 2.0})
    logger.close()

    assert steps_in(logger.path) == [1, 2, 3, 4]
    assert read_metrics(logger.path)[-1]["loss"] == 2.0


def test_a_half_written_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    write(path, 1, 2)
    with path.open("a") as file:
        file.write('{"step": 2, "lo')

    assert [record["step"] for record in read_metrics(path)] == [1, 2]
    drop_records_after(path, step=9)
    assert steps_in(path) == [1, 2]


def test_starting_over_empties_the_file(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    write(path, 0, 1, 2)
    drop_records_after(path, step=0)
    drop_records_after(tmp_path / "absent.jsonl", step=0)

    assert path.read_text() == ""
    assert not (tmp_path / "absent.jsonl").exists()


def test_lines_of_one_step_are_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    path.write_text('{"step": 2, "loss": 1}\n{"step": 1, "loss": 3}\n{"step": 2, "val_loss": 2}\n')

    assert read_metrics(path) == [{"step": 1, "loss": 3}, {"step": 2, "loss": 1, "val_loss": 2}]


def test_tensorboard_gets_every_metric(tmp_path: Path) -> None:
    jsonl, tensorboard = build_loggers(
        backend=LoggerBackend.tensorboard, folder=tmp_path, run_name="run", project="tests"
    )
    tensorboard.begin()
    tensorboard.log(3, {"loss": 2.0})
    tensorboard.log(4, {"val_loss": 1.25})
    tensorboard.close()

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("val_loss")] == [(4, 1.25)]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 2.0)]
    assert isinstance(jsonl, JsonlLogger)


def test_services_know_a_run_by_an_id_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **values: asked.append(values["id"])))
    for folder in ("mine/run", "mine/run", "yours/run"):
        WeightsAndBiases(name="run", project="shared", folder=tmp_path / folder).begin()
    assert asked[0] == asked[1] != asked[2]
    assert asked == [run_id(tmp_path / folder) for folder in ("mine/run", "mine/run", "yours/run")]


def test_no_backend_leaves_the_file_alone(tmp_path: Path) -> None:
    loggers = build_loggers(backend=LoggerBackend.none, folder=tmp_path, run_name="run", project="tests")

    assert [type(logger) for logger in loggers] == [JsonlLogger]


@pytest.mark.parametrize("backend", [LoggerBackend.wandb, LoggerBackend.mlflow])
def test_a_missing_package_is_named_with_its_remedy(backend: LoggerBackend, tmp_path: Path) -> None:
    def build() -> object:
        return build_loggers(backend=backend, folder=tmp_path, run_name="run", project="tests")[1]

    if importlib.util.find_spec(backend.value):
        build()
    else:
        with pytest.raises(ConfigError, match=f"pip install --no-deps {backend.value}"):
            build()


class Broken:
    """A logger whose service is gone from some call on."""

    def __init__(self, *works: str) -> None:
        self.works, self.calls = works, 0

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object) -> None:
            self.calls += 1
            if name not in self.works:
                raise RuntimeError("503 from https://metrics.example\nwith more lines")

        return call


def test_a_logger_that_cannot_begin_stops_the_run_before_it_trains() -> None:
    with pytest.raises(ConfigError, match=r"logger=wandb cannot begin \(503 from .*example\).*logger=none$"):
        OptionalLogger(Broken(), "wandb", show=print).begin()  # type: ignore[arg-type]


def test_a_logger_that_fails_later_ends_nothing_but_itself() -> None:
    told: list[str] = []
    broken = Broken("begin", "resume_from")
    logger = OptionalLogger(broken, "mlflow", show=told.append)  # type: ignore[arg-type]
    logger.begin()
    logger.resume_from(3)
    for step in (4, 5):
        logger.log(step, {"loss": 1.0})
    logger.close()
    assert broken.calls == 4  # closed all the same
    assert len(told) == 1
    assert f"{METRICS_FILE} has everything" in told[0]
