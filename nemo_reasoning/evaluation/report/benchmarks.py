"""The report on benchmarks as one HTML page that needs nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import page_template
from nemo_reasoning.evaluation.report.figures import data_uri, setting_name
from nemo_reasoning.evaluation.report.tables import interval, percent, points, points_between
from nemo_reasoning.evaluation.results import BenchmarkResult, Setting, failure, failures
from nemo_reasoning.evaluation.samples import limits_not_kept
from nemo_reasoning.evaluation.statistics import PairedDifference

_FAILURES = 6
_EXCERPT = 4000


def render_benchmarks(
    measurements: Sequence[BenchmarkResult],
    *,
    name: str,
    method: Mapping[str, str],
    charts: Mapping[str, Path],
    max_tokens: int,
) -> str:
    """Return the page.

    Args:
        measurements: What to show; text of models is escaped.
        name: Of the run.
        method: How it was measured: a word and its value each.
        charts: From `draw_benchmark_figures`.
        max_tokens: Limit of an answer that was asked for.
    """
    results = [measurement.to_dict() for measurement in measurements]
    return page_template("nemo_reasoning.evaluation.report", "benchmarks.html.jinja").render(
        name=name,
        headline=_headline(measurements),
        gains=[_gain(found, setting) for found in measurements for setting in found.settings()],
        thinking=[row for found in measurements for row in _thinking(found)],
        scores=[
            {"benchmark": found.benchmark, "setting": setting_name((row["mode"], row["budget"])), **row}
            for found, result in zip(measurements, results, strict=True)
            for row in result["scores"]
        ],
        contaminated=[
            (found.benchmark, len(found.contaminated), len(found.questions()))
            for found in measurements
            if found.contaminated is not None
        ],
        failures=[(found.benchmark, *row) for found in measurements for row in _failures(found)],
        charts={chart: data_uri(path) for chart, path in charts.items()},
        method=method,
        notes=[
            f"{found.benchmark}, {model}: {note}"
            for found in measurements
            for model, evaluation in found.evaluations.items()
            for note in limits_not_kept(evaluation.samples, max_tokens)
        ],
        percent=percent,
        interval=interval,
    )


def _headline(measurements: Sequence[BenchmarkResult]) -> list[str]:
    """Return a sentence per benchmark: the gain of training, or the accuracy, with thinking as far as measured."""
    said = []
    for found in measurements:
        setting = found.main_setting()
        model = list(found.evaluations)[-1]
        result = found.score(model, setting)
        sentence = f"{found.benchmark}, {setting_name(setting)}: {percent(result.accuracy)} right"
        gain = found.gain(setting)
        if gain is not None:
            certain = "significant" if gain.p_value < 0.05 else "not significant"
            sentence += f", {points(gain.difference)} points against the base model ({certain}, p = {gain.p_value:.2g})"
        said.append(sentence)
    return said


def _gain(measurement: BenchmarkResult, setting: Setting) -> dict[str, Any]:
    cells = {}
    for model in measurement.evaluations:
        result = measurement.score(model, setting)
        bounds = measurement.interval(model, setting)
        cells[model] = (percent(result.accuracy), interval(bounds), f"{result.correct}/{result.n}")
    gain = measurement.gain(setting)
    return {
        "benchmark": measurement.benchmark,
        "setting": setting_name(setting),
        "cells": cells,
        "gain": None if gain is None else _in_words(gain),
    }


def _thinking(measurement: BenchmarkResult) -> list[dict[str, Any]]:
    rows = []
    for model in measurement.evaluations:
        for mode, budget in measurement.settings():
            found = measurement.thinking_gain(model, budget) if mode == "on" else None
            if found is not None:
                name = f"{measurement.benchmark}, {model}"
                rows.append({"name": name, "setting": setting_name((mode, budget)), **_in_words(found)})
    return rows


def _in_words(found: PairedDifference) -> dict[str, str]:
    return {
        "difference": points(found.difference),
        "interval": points_between(found.interval),
        "p_value": f"{found.p_value:.2g}",
        "moved": f"{found.gained} won, {found.lost} lost",
    }


def _failures(measurement: BenchmarkResult) -> list[tuple[str, Any, str, str]]:
    """Return (model, sample, why, text) of wrong answers of the model that matters: the last one."""
    model = list(measurement.evaluations)[-1]
    return [
        (model, sample, failure(sample), _shortened(sample.text))
        for sample in failures(measurement, model, count=_FAILURES)
    ]


def _shortened(text: str) -> str:
    half = _EXCERPT // 2
    return text if len(text) <= _EXCERPT else f"{text[:half]}\n[… {len(text) - _EXCERPT} characters …]\n{text[-half:]}"
