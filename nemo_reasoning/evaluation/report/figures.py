"""Figures of both reports: curves of a training run, bars and lines of benchmarks."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nemo_reasoning.artifacts import atomic_path
from nemo_reasoning.evaluation.results import BenchmarkResult, Setting

COLOURS = {"base": "#8a949e", "start": "#7ba7d7", "trained": "#2563a8"}
_OTHER, _INK = "#2563a8", "#1c2126"

Records = Sequence[Mapping[str, Any]]
Curve = tuple[float, tuple[float, float]]

_BLUE, _ORANGE, _GREEN, _GREY = "#2563a8", "#c8571b", "#3b7d4f", "#5b6570"
_GIB = 2**30
_VRAM = {
    "vram_peak_bytes": ("peak", _ORANGE, "-"),
    "vram_reserved_bytes": ("reserved", _GREY, "--"),
    "vram_allocated_bytes": ("allocated", _BLUE, "-"),
}


def draw_benchmark_figures(measurements: Sequence[BenchmarkResult], folder: Path) -> dict[str, Path]:
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


def data_uri(path: Path) -> str:
    """Return a PNG file as an address that holds it."""
    return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"


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


def _modes(measurements: Sequence[BenchmarkResult]) -> Figure:
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


def _thinking(measurements: Sequence[BenchmarkResult]) -> Figure:
    """Accuracy against mean thinking tokens: a line per benchmark and model; a hollow point is thinking off."""
    figure, axes = _figure(7.2, 4.0)
    styles = ["-", "--", ":", "-."]
    for number, measurement in enumerate(measurements):
        for model in measurement.evaluations:
            scores = {setting: measurement.score(model, setting) for setting in measurement.settings()}
            points = {
                setting: (one.mean_reasoning_tokens, 100 * one.accuracy)
                for setting, one in scores.items()
                if one.mean_reasoning_tokens is not None
            }
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


def _subjects(measurement: BenchmarkResult) -> Figure | None:
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


def draw_training_figures(records: Records, folder: Path) -> dict[str, Path]:
    """Draw loss.png, throughput.png and memory.png.

    Args:
        records: One mapping per optimiser step.
        folder: Where the pictures go.

    Returns:
        The path of each drawn picture by its name; a picture of something the run did not record is
        not drawn.
    """
    figures = {"loss": _loss(records), "throughput": _throughput(records), "memory": _memory(records)}
    drawn: dict[str, Path] = {}
    for name, figure in figures.items():
        if figure is not None:
            drawn[name] = folder / f"{name}.png"
            with atomic_path(drawn[name]) as temporary:
                figure.savefig(temporary, format="png")
    return drawn


def _loss(records: Records) -> Figure | None:
    steps, train = _series(records, "loss")
    if not steps:
        return None
    figure, axes = _curve_axes("Loss")
    axes.plot(steps, train, color=_BLUE, label=f"training, last {train[-1]:.3f}")
    checked, validation = _series(records, "val_loss")
    if checked:
        label = f"validation, last {validation[-1]:.3f}"
        axes.plot(checked, validation, color=_ORANGE, marker="o", markersize=4, label=label)
    return _finished(figure, axes)


def _throughput(records: Records) -> Figure | None:
    steps, total = _series(records, "tokens_per_second")
    supervised_steps, supervised = _series(records, "supervised_tokens_per_second")
    if not steps or not supervised_steps:
        return None
    figure, axes = _curve_axes("Tokens per second")
    axes.plot(steps, total, color=_GREY, label="all, padding included")
    axes.plot(supervised_steps, supervised, color=_BLUE, label="supervised")
    return _finished(figure, axes)


def _memory(records: Records) -> Figure | None:
    on_gpu = bool(_series(records, "vram_peak_bytes")[0])
    curves = _VRAM if on_gpu else {"rss_bytes": ("resident", _GREEN, "-")}
    figure, axes = _curve_axes("GPU memory, GiB" if on_gpu else "Resident memory, GiB")
    drawn = False
    for key, (label, colour, style) in curves.items():
        steps, values = _series(records, key)
        drawn = drawn or bool(steps)
        axes.plot(steps, [value / _GIB for value in values], color=colour, linestyle=style, label=label)
    return _finished(figure, axes) if drawn else None


def _series(records: Records, key: str) -> tuple[list[int], list[float]]:
    """Return steps and values of the records that hold a number under `key`."""
    found = [(record["step"], record[key]) for record in records if key in record and record[key] is not None]
    return [step for step, _ in found], [value for _, value in found]


def _curve_axes(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=12)
    axes.set_xlabel("step")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _finished(figure: Figure, axes: Any) -> Figure:
    """Let the vertical axis begin at zero, with room above; put the legend where no curve can be."""
    axes.set_ylim(bottom=0, top=1.08 * axes.dataLim.ymax)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=3)
    return figure


def draw_rounds(accuracy: Sequence[Curve], tokens: Sequence[float | None], path: Path) -> None:
    """Draw right answers by round with their intervals, and below them the length of answers.

    Args:
        accuracy: (share, (low, high)) of each round, from round 0 on.
        tokens: Mean tokens of an answer; None where they were not counted.
        path: The PNG.
    """
    figure = Figure(figsize=(6.4, 4.4), dpi=150, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    rounds = range(len(accuracy))
    shares = [100 * share for share, _ in accuracy]
    reach = [[share - 100 * low for share, (_, (low, _)) in zip(shares, accuracy, strict=True)]]
    reach.append([100 * high - share for share, (_, (_, high)) in zip(shares, accuracy, strict=True)])
    above.errorbar(rounds, shares, yerr=reach, color=_BLUE, marker="o", capsize=3)
    counted = [(number, count) for number, count in zip(rounds, tokens, strict=True) if count is not None]
    below.plot([number for number, _ in counted], [count for _, count in counted], color=_ORANGE, marker="o")
    above.set_title("Right answers with thinking, per cent, and 95 % interval", loc="left", fontsize=11)
    below.set_title("Mean tokens of an answer", loc="left", fontsize=11)
    below.set_xlabel("round")
    below.set_xticks(list(rounds))
    for axes, top in ((above, 105), (below, 1.2 * max((count for _, count in counted), default=1))):
        axes.set_ylim(0, top)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
