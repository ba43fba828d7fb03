"""When a run is measured again, and how long that takes; on a tiny random model, without training one."""

import contextlib
import json
import time
from pathlib import Path

import pytest
from composing import sft_settings
from rich.console import Console

from nemo_reasoning import pipeline
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.evaluation.report.training import Stage, evaluation_path, measurement, recorded
from nemo_reasoning.evaluation.samples import Evaluation
from nemo_reasoning.training.checkpoints import seal
from nemo_reasoning.training.process import Stopped
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import TrainingInputs
from nemo_reasoning.training.usage import USAGE_FILE, Usage


@pytest.fixture
def inputs(shared_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingInputs:
    """Return a tiny model, which is what every checkpoint is exported as."""
    monkeypatch.setattr(pipeline, "ensure_exported", lambda run, tokenizer_python: (shared_llama, None))
    formatter = ChatFormatter.load(shared_llama, template=load_template("chatml"))
    return TrainingInputs(base=None, tokenizer=shared_llama, formatter=formatter, data=tmp_path / "data")


def settings(folder: Path, *overrides: str) -> SftSettings:
    return sft_settings("hardware=cpu", f"output_dir={folder}", "trainer.seq_length=8", *overrides)


def asked(stage: Stage, run: Run, inputs: TrainingInputs) -> int:
    """Measure, and return how many problems the samples that are there now are of, if they are new."""
    path = evaluation_path(run.path, stage)
    before = path.stat().st_ino if path.exists() else None
    pipeline._measure(stage, run, inputs, console=Console(quiet=True))
    new = path.stat().st_ino != before
    return len(Evaluation.load(path).of("on")) if new else 0


def save(run: Run, step: int) -> None:
    weights = run.path / "checkpoints" / f"step={step}" / "weights"
    weights.mkdir(parents=True)
    (weights / "__0_0.distcp").write_text(f"trained for {step} steps")
    seal(weights.parent, step=step)


def test_other_weights_and_other_problems_are_measured_again(inputs: TrainingInputs, tmp_path: Path) -> None:
    run = Run.start(settings(tmp_path / "run", "evaluate=2"))
    assert [asked("base", run, inputs) for _ in range(2)] == [2, 0]
    save(run, 2)
    assert [asked("trained", run, inputs) for _ in range(2)] == [2, 0]

    longer = Run.start(settings(tmp_path / "run", "evaluate=2"))
    save(longer, 4)
    assert [asked(stage, longer, inputs) for stage in ("base", "trained", "trained")] == [0, 2, 0]
    more = Run.start(settings(tmp_path / "run", "evaluate=3", "evaluate_before=1"))
    assert [asked(stage, more, inputs) for stage in ("base", "trained")] == [1, 3]

    evaluation_path(run.path, "trained").with_suffix(".json").unlink()  # as an earlier version left it
    assert asked("trained", more, inputs) == 3
    assert measurement(run.path, "trained")["seconds"] > 0


def test_a_later_start_knows_how_long_measuring_takes(inputs: TrainingInputs, tmp_path: Path) -> None:
    run = Run.start(settings(tmp_path / "run", "evaluate=4", "evaluate_before=2"))
    assert [asked("base", run, inputs) for _ in range(2)] == [2, 0]
    took = measurement(run.path, "base")["seconds"]
    assert pipeline._time_afterwards(run, before=10.0) == 10 + 2 * took > 10


def test_time_adds_up_over_the_starts_that_did_something(tmp_path: Path) -> None:
    def wall_seconds() -> float:
        found: float = json.loads((tmp_path / "run" / "evaluation" / "run.json").read_text())["wall_seconds"]
        return found

    def start(seconds: float, *overrides: str, step: int | None = None, stopped: bool = False) -> None:
        run = Run.start(settings(tmp_path / "run", *overrides))
        with contextlib.suppress(Stopped), recorded(run, Usage(run, began=time.monotonic() - seconds)):
            if step is not None:
                save(run, step)
                raise Stopped(130)
            if stopped:
                raise Stopped(143)

    start(1000, step=2)
    start(2000, step=4)
    assert 3000 <= wall_seconds() < 3100
    start(5000)  # finds everything done
    assert 3000 <= wall_seconds() < 3100
    start(6000, stopped=True)  # while it prepared
    assert 9000 <= wall_seconds() < 9100
    start(4000, "restart=true", step=6)
    assert 4000 <= wall_seconds() < 4100


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"wall_seconds": null, "peak_rss_bytes": 1}', '{"wall_seconds": 3}']
)
def test_a_record_that_cannot_be_read_begins_anew(tmp_path: Path, content: str) -> None:
    run = Run.start(settings(tmp_path / "run"))
    (run.path / USAGE_FILE).parent.mkdir()
    (run.path / USAGE_FILE).write_text(content)
    Usage(run, began=time.monotonic() - 10).record()
    assert Usage(run, began=time.monotonic()).earlier == pytest.approx(10, abs=1)


def test_a_moved_run_gets_no_new_folder(tmp_path: Path) -> None:
    run = Run.start(settings(tmp_path / "run"))
    usage = Usage(run, began=time.monotonic())
    run.path.rename(tmp_path / "elsewhere")
    usage.record()
    assert not run.path.exists()
