"""The report of a run: what training changed, built from the files of the run folder alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from nemo_reasoning.artifacts import page_template, write_json, write_text
from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.report.tables import cell, interval, percent
from nemo_reasoning.evaluation.samples import Evaluation, Sample
from nemo_reasoning.evaluation.scores import Score, score
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.training.checkpoints import METRICS_FILE
from nemo_reasoning.training.loggers import read_metrics
from nemo_reasoning.training.process import Stopped
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.usage import USAGE_FILE, Usage, read_usage

Stage = Literal["base", "trained"]
STAGES: tuple[Stage, ...] = ("base", "trained")
MODES: tuple[Mode, ...] = ("on", "off")
STAGE_NAMES: dict[Stage, str] = {"base": "before", "trained": "after"}
_CAPTIONS = {
    "loss": "Training and validation loss",
    "throughput": "Training speed",
    "memory": "Memory while training",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run reports.

    Attributes:
        name: Of the run.
        evaluations: Samples before ("base") and after training ("trained").
        metrics: One mapping per optimiser step.
        wall_seconds: Time the whole run took, all starts that trained or measured together.
        peak_rss_bytes: Most memory that its process held, in any of them.
    """

    name: str
    evaluations: Mapping[Stage, Evaluation]
    metrics: Sequence[Mapping[str, Any]]
    wall_seconds: float
    peak_rss_bytes: int

    def score(self, stage: Stage, mode: Mode) -> Score:
        """Count the samples of a stage in a mode."""
        return score(self.evaluations[stage].of(mode))

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
        scores = {stage: {mode: self.score(stage, mode).to_dict() for mode in MODES} for stage in self.evaluations}
        return scores | {
            "wall_seconds": self.wall_seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "supervised_tokens_per_second": self.supervised_tokens_per_second,
        }


def evaluation_path(folder: Path, stage: Stage) -> Path:
    """Return where a run folder keeps the samples of a stage; `save_measurement` writes them."""
    return folder / "evaluation" / f"{stage}.jsonl"


def save_measurement(
    folder: Path, stage: Stage, evaluation: Evaluation, *, of: Mapping[str, Any], seconds: float
) -> None:
    """Keep the samples of a stage in a run folder, in place of earlier ones.

    Args:
        folder: Of the run.
        stage: Before or after training.
        evaluation: The samples.
        of: Which weights answered, under "weights", and all else that the answers depend on.
        seconds: That it took.
    """
    path = evaluation_path(folder, stage)
    path.with_suffix(".json").unlink(missing_ok=True)  # a kill behind this leaves samples of nobody knows what
    evaluation.save(path)
    write_json(path.with_suffix(".json"), {"of": dict(of), "seconds": seconds})


def measurement(folder: Path, stage: Stage) -> dict[str, Any]:
    """Return what the samples of a stage are `of`, and the `seconds` they took; nothing where that is not known."""
    path = evaluation_path(folder, stage)
    try:
        found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if path.is_file() and isinstance(found, dict) else {}


@contextmanager
def recorded(run: Run, usage: Usage) -> Iterator[None]:
    """Record what a start took, however the block ends, if it did something in it or was stopped.

    Args:
        run: The run.
        usage: Of this start.
    """
    before = _done(run)
    try:
        yield
    except BaseException as error:
        if isinstance(error, Stopped) or _done(run) != before:
            with suppress(OSError):  # what ended the start is what the user has to hear of
                usage.record()
        raise
    if _done(run) != before or run.settings.restart:
        usage.record()


def _done(run: Run) -> tuple[Any, ...]:
    return run.last, *(measurement(run.path, stage) for stage in STAGES)


def load_report(folder: Path) -> Report:
    """Read a run folder: metrics.jsonl, and evaluation/ with base.jsonl, trained.jsonl and run.json.

    Raises:
        DataError: One of them is missing.
    """
    usage = read_usage(folder)
    for path, there in ((folder / METRICS_FILE, (folder / METRICS_FILE).is_file()), (folder / USAGE_FILE, usage)):
        if not there:
            raise DataError(f"{path} does not exist; train and evaluate before you ask for the report")
    return Report(
        name=folder.resolve().name,
        evaluations={stage: Evaluation.load(evaluation_path(folder, stage)) for stage in STAGES},
        metrics=read_metrics(folder / METRICS_FILE),
        **usage,
    )


def write_report(folder: Path) -> Report:
    """Build report.json, report.html and plots/*.png of a run folder from its other files.

    Raises:
        DataError: A file is missing, a mode was not evaluated, or no throughput was recorded.
    """
    from nemo_reasoning.evaluation.report.figures import data_uri, draw_training_figures

    report = load_report(folder)
    write_json(folder / "report.json", report.to_dict())
    plots = draw_training_figures(report.metrics, folder / "plots")
    page = render_page(report, plots={name: data_uri(path) for name, path in plots.items()})
    write_text(folder / "report.html", page)
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


def report_table(report: Report) -> Table:
    """Return accuracy, format and length, before and after training, thinking on and off.

    Print it with a `rich.console.Console`.
    """
    table = Table(title=f"{report.name}: held-out problems", caption="[ ] 95 % Wilson interval, per cent")
    table.add_column("training")
    table.add_column("thinking")
    for heading in ("right", "well-formed", "mean tokens"):
        table.add_column(heading, justify="right")
    for stage in STAGES:
        for mode in MODES:
            result = report.score(stage, mode)
            table.add_row(
                STAGE_NAMES[stage],
                mode,
                cell(result.correct, result.n, result.accuracy_interval),
                cell(result.well_formed, result.n, result.well_formed_interval),
                f"{result.mean_tokens:.1f}",
                end_section=mode == MODES[-1],
            )
    return table


def render_page(report: Report, *, plots: Mapping[str, str]) -> str:
    """Return the report as HTML with its pictures inside.

    Args:
        report: What to show; text of the model is escaped.
        plots: Pictures by name, as data URIs; a missing one is named as not recorded.
    """
    scores = {(stage, mode): report.score(stage, mode) for stage in STAGES for mode in MODES}
    return page_template("nemo_reasoning.evaluation.report", "report.html.jinja").render(
        name=report.name,
        after=scores["trained", "on"],
        rows=[_row(STAGE_NAMES[stage], mode, result) for (stage, mode), result in scores.items()],
        families=_families(scores),
        facts=_facts(report),
        plots=plots,
        captions=_CAPTIONS,
        dialogues=sample_dialogues(report),
        percent=percent,
    )


def _row(stage: str, mode: str, result: Score) -> dict[str, Any]:
    low, high = result.accuracy_interval
    return {
        "stage": stage,
        "mode": mode,
        "score": result,
        "accuracy": percent(result.accuracy),
        "accuracy_interval": interval(result.accuracy_interval),
        "low": low,
        "high": high,
        "well_formed": percent(result.well_formed / result.n),
        "well_formed_interval": interval(result.well_formed_interval),
    }


def _families(scores: Mapping[tuple[Any, Any], Score]) -> list[tuple[str, list[str]]]:
    """Return a row per kind of problem: right answers over problems, a column per score."""
    names = next(iter(scores.values())).families
    return [
        (
            name,
            [f"{result.families[name]['correct']}/{result.families[name]['n']}" for result in scores.values()],
        )
        for name in names
    ]


def _facts(report: Report) -> list[tuple[str, str]]:
    minutes, seconds = divmod(round(report.wall_seconds), 60)
    facts = [
        ("Whole run", f"{minutes} min {seconds:02d} s"),
        ("Peak memory", f"{report.peak_rss_bytes / 1e9:.2f} GB"),
        ("Supervised tokens a second", f"{report.supervised_tokens_per_second:.0f}"),
        ("Optimiser steps", str(report.metrics[-1]["step"])),
    ]
    for title, key in (("Last training loss", "loss"), ("Last validation loss", "val_loss")):
        values = [step[key] for step in report.metrics if step.get(key) is not None]
        facts += [(title, f"{values[-1]:.3f}")] if values else []
    return facts
