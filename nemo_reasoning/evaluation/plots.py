"""Curves of a training run, drawn from its metrics.jsonl."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nemo_reasoning.artifacts import atomic_path

Records = Sequence[Mapping[str, Any]]

_BLUE, _ORANGE, _GREEN, _GREY = "#2563a8", "#c8571b", "#3b7d4f", "#5b6570"
_GIB = 2**30
_VRAM = {
    "vram_peak_bytes": ("peak", _ORANGE, "-"),
    "vram_reserved_bytes": ("reserved", _GREY, "--"),
    "vram_allocated_bytes": ("allocated", _BLUE, "-"),
}


def draw_plots(records: Records, folder: Path) -> dict[str, Path]:
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
    figure, axes = _figure("Loss")
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
    figure, axes = _figure("Tokens per second")
    axes.plot(steps, total, color=_GREY, label="all, padding included")
    axes.plot(supervised_steps, supervised, color=_BLUE, label="supervised")
    return _finished(figure, axes)


def _memory(records: Records) -> Figure | None:
    on_gpu = bool(_series(records, "vram_peak_bytes")[0])
    curves = _VRAM if on_gpu else {"rss_bytes": ("resident", _GREEN, "-")}
    figure, axes = _figure("GPU memory, GiB" if on_gpu else "Resident memory, GiB")
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


def _figure(title: str) -> tuple[Figure, Any]:
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
