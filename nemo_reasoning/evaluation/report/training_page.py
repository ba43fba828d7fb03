"""The report as one HTML page that needs nothing else."""

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import page_template
from nemo_reasoning.evaluation.report.tables import STAGE_NAMES, interval, percent
from nemo_reasoning.evaluation.report.training import MODES, STAGES, Report, sample_dialogues
from nemo_reasoning.evaluation.scores import Score

_CAPTIONS = {
    "loss": "Training and validation loss",
    "throughput": "Training speed",
    "memory": "Memory while training",
}


def render_page(report: Report, *, plots: Mapping[str, Path]) -> str:
    """Return the report as HTML with its pictures inside.

    Args:
        report: What to show; text of the model is escaped.
        plots: Pictures by name; a missing one is named as not recorded.
    """
    scores = {(stage, mode): report.evaluations[stage].score(mode) for stage in STAGES for mode in MODES}
    return page_template("nemo_reasoning.evaluation.report", "report.html.jinja").render(
        name=report.name,
        after=scores["trained", "on"],
        rows=[_row(STAGE_NAMES[stage], mode, result) for (stage, mode), result in scores.items()],
        families=_families(scores),
        facts=_facts(report),
        plots={name: data_uri(path) for name, path in plots.items()},
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


def data_uri(path: Path) -> str:
    """Return a PNG file as an address that holds it."""
    return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"
