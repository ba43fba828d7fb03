"""The report of a run: what training changed, built from the files of the run folder alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nemo_reasoning.artifacts import write_json, write_text
from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.samples import Evaluation, Sample
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.training.loggers import METRICS_FILE, read_metrics

Stage = Literal["base", "trained"]
STAGES: tuple[Stage, ...] = ("base", "trained")
MODES: tuple[Mode, ...] = ("on", "off")
_RUN_FILE = "run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run reports.

    Attributes:
        name: Of the run.
        evaluations: Samples before ("base") and after training ("trained").
        metrics: One mapping per optimiser step.
        wall_seconds: Time the whole run took.
        peak_rss_bytes: Most memory its process held.
    """

    name: str
    evaluations: Mapping[Stage, Evaluation]
    metrics: Sequence[Mapping[str, Any]]
    wall_seconds: float
    peak_rss_bytes: int

    @property
    def supervised_tokens_per_second(self) -> float:
        """Supervised tokens over time inside training steps.

        Raises:
            DataError: The run recorded no throughput.
        """
        rates = "supervised_tokens_per_second"
        steps = [(step[rates], step["step_seconds"]) for step in self.metrics if step.get(rates) is not None]
        seconds = sum(duration for _, duration in steps)
        if not seconds:
            raise DataError(f"{METRICS_FILE} holds no throughput; train with callbacks.throughput=true")
        return float(sum(rate * duration for rate, duration in steps) / seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of report.json."""
        scores = {
            stage: {mode: evaluation.score(mode).to_dict() for mode in MODES}
            for stage, evaluation in self.evaluations.items()
        }
        return scores | {
            "wall_seconds": self.wall_seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "supervised_tokens_per_second": self.supervised_tokens_per_second,
        }


def evaluation_path(folder: Path, stage: Stage) -> Path:
    """Return where a run folder keeps the samples of a stage: pass it to `Evaluation.save`."""
    return folder / "evaluation" / f"{stage}.jsonl"


def record_run(folder: Path, *, wall_seconds: float, peak_rss_bytes: int) -> None:
    """Keep what only the running process knows, so that the report can be built again later."""
    facts = {"wall_seconds": wall_seconds, "peak_rss_bytes": peak_rss_bytes}
    write_json(folder / "evaluation" / _RUN_FILE, facts)


def load_report(folder: Path) -> Report:
    """Read a run folder: metrics.jsonl, and evaluation/ with base.jsonl, trained.jsonl and run.json.

    Raises:
        DataError: One of them is missing.
    """
    facts_path = folder / "evaluation" / _RUN_FILE
    for path in (folder / METRICS_FILE, facts_path):
        if not path.is_file():
            raise DataError(f"{path} does not exist; train and evaluate before you ask for the report")
    facts = json.loads(facts_path.read_text(encoding="utf-8"))
    return Report(
        name=folder.resolve().name,
        evaluations={stage: Evaluation.load(evaluation_path(folder, stage)) for stage in STAGES},
        metrics=read_metrics(folder / METRICS_FILE),
        wall_seconds=facts["wall_seconds"],
        peak_rss_bytes=facts["peak_rss_bytes"],
    )


def write_report(folder: Path) -> Report:
    """Build report.json, report.html and plots/*.png of a run folder from its other files.

    Raises:
        DataError: A file is missing, a mode was not evaluated, or no throughput was recorded.
    """
    from nemo_reasoning.evaluation.report.figures import draw_training_figures
    from nemo_reasoning.evaluation.report.training_page import render_page

    report = load_report(folder)
    write_json(folder / "report.json", report.to_dict())
    plots = draw_training_figures(report.metrics, folder / "plots")
    write_text(folder / "report.html", render_page(report, plots=plots))
    return report


def sample_dialogues(report: Report) -> list[tuple[str, Sample]]:
    """Choose three dialogues with the trained model, each with a word on why.

    A right answer with thinking, the same problem without, and a wrong answer with thinking; where
    there is none of a kind, the next sample of the mode.
    """
    thinking, direct = (report.evaluations["trained"].of(mode) for mode in MODES)
    first = next((sample for sample in thinking if sample.correct), thinking[0])
    same = next((sample for sample in direct if sample.prompt == first.prompt), direct[0])
    others = [sample for sample in thinking if sample is not first] or [first]
    third = next((sample for sample in others if not sample.correct), others[0])
    title = "Another problem, thinking on" if third.correct else "A mistake, thinking on"
    return [("Thinking on", first), ("The same problem, thinking off", same), (title, third)]
