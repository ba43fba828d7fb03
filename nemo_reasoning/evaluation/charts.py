"""Pictures of a benchmark report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nemo_reasoning.artifacts import atomic_path
from nemo_reasoning.evaluation.results import Measurement, Setting

COLOURS = {"base": "#8a949e", "trained": "#2563a8"}
_OTHER, _INK = "#2563a8", "#1c2126"


def draw_charts(measurements: Sequence[Measurement], folder: Path) -> dict[str, Path]:
    """Draw modes.png, thinking.png, and subjects_<benchmark>.png where a benchmark has several subjects.

    Returns:
        The path of each picture by its name.
    """
    figures = {"modes": _modes(measurements), "thinking": _thinking(measurements)}
    for measurement in measurements:
        figure = _subjects(measurement)
        if figure is not None:
            figures[f"subjects_{measurement.benchmark}"] = figure
    drawn = {}
    for name, figure in figures.items():
        drawn[name] = folder / f"{name}.png"
        with atomic_path(drawn[name]) as temporary:
            figure.savefig(temporary, format="png")
    return drawn


def setting_name(setting: Setting) -> str:
    """Return a mode and its budget in words."""
    mode, budget = setting
    return f"thinking {mode}" if budget is None else f"thinking {mode}, {budget} tokens"


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes


def _modes(measurements: Sequence[Measurement]) -> Figure:
    """Accuracy with its interval: a row per benchmark, mode and budget, a bar per model."""
    rows = [(measurement, setting) for measurement in measurements for setting in measurement.settings()]
    models = list(dict.fromkeys(model for measurement in measurements for model in measurement.evaluations))
    figure, axes = _figure(7.2, 1.0 + 0.34 * len(rows) * max(1.6, len(models)))
    height = 0.8 / len(models)
    for place, model in enumerate(models):
        for row, (measurement, setting) in enumerate(rows):
            if not measurement.samples(model, setting):
                continue
            found = measurement.score(model, setting)
            low, high = measurement.interval(model, setting)
            y = row + (place - (len(models) - 1) / 2) * height
            axes.barh(y, 100 * found.accuracy, height * 0.9, color=COLOURS.get(model, _OTHER), label=model)
            axes.plot([100 * low, 100 * high], [y, y], color=_INK, linewidth=1)
            axes.text(100 * high + 1, y, f"{100 * found.accuracy:.1f}", va="center", fontsize=8)
    axes.set_yticks(
        range(len(rows)), [f"{measurement.benchmark}, {setting_name(setting)}" for measurement, setting in rows]
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 108)
    axes.set_title("Right answers, per cent", loc="left", fontsize=11)
    _legend(axes)
    return figure


def _thinking(measurements: Sequence[Measurement]) -> Figure:
    """Accuracy against mean thinking tokens: a line per benchmark and model; a hollow point is thinking off."""
    figure, axes = _figure(7.2, 4.0)
    styles = ["-", "--", ":", "-."]
    for number, measurement in enumerate(measurements):
        for model in measurement.evaluations:
            scores = {setting: measurement.score(model, setting) for setting in measurement.settings()}
            points = {setting: (one.mean_reasoning_tokens, 100 * one.accuracy) for setting, one in scores.items()}
            colour, label = COLOURS.get(model, _OTHER), f"{measurement.benchmark}, {model}"
            thinking = sorted(point for (mode, _), point in points.items() if mode == "on")
            style = styles[number % len(styles)]
            axes.plot([x for x, _ in thinking], [y for _, y in thinking], style, marker="o", color=colour, label=label)
            for x, y in (point for (mode, _), point in points.items() if mode == "off"):
                axes.plot(x, y, marker="o", markerfacecolor="white", color=colour, linestyle="none")
    axes.set_ylim(0, 105)
    axes.set_xlim(left=0)
    axes.set_xlabel("mean thinking tokens of an answer; hollow: thinking off")
    axes.set_title("Right answers, per cent", loc="left", fontsize=11)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    _legend(axes)
    return figure


def _subjects(measurement: Measurement) -> Figure | None:
    """Accuracy by subject, with the largest budget of thinking: a pair of bars per subject."""
    setting = measurement.main_setting()
    scores = {model: measurement.score(model, setting).families for model in measurement.evaluations}
    subjects = sorted(set().union(*scores.values()))
    if len(subjects) < 2:
        return None
    figure, axes = _figure(7.2, 1.0 + 0.2 * len(subjects) * max(1.6, len(scores)))
    height = 0.8 / len(scores)
    for place, (model, families) in enumerate(scores.items()):
        shares = [100 * families[subject]["correct"] / families[subject]["n"] for subject in subjects]
        offset = (place - (len(scores) - 1) / 2) * height
        rows = [row + offset for row in range(len(subjects))]
        axes.barh(rows, shares, height * 0.9, color=COLOURS.get(model, _OTHER), label=model)
    axes.set_yticks(range(len(subjects)), subjects, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_title(
        f"{measurement.benchmark}: right answers, per cent, {setting_name(setting)}", loc="left", fontsize=11
    )
    _legend(axes)
    return figure


def _legend(axes: Any) -> None:
    """Name each colour once, below the axes, where there is more than one."""
    handles, labels = axes.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    if len(named) > 1:
        axes.figure.legend(named.values(), named.keys(), frameon=False, fontsize=8, loc="outside lower left", ncols=3)
