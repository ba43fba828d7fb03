"""The report of a prepared folder: a picture of the lengths, and one page that needs nothing else."""

from base64 import b64encode
from importlib import import_module
from pathlib import Path
from threading import Thread

from jinja2 import Environment, PackageLoader, StrictUndefined

from nemo_reasoning.artifacts import write_text
from nemo_reasoning.data.prepare.shards import KEPT
from nemo_reasoning.data.prepare.statistics import Statistics

_PICTURE = "lengths.png"


def page_environment() -> Environment:
    """Return the environment of this room's HTML templates; text of rows is escaped."""
    return Environment(
        loader=PackageLoader("nemo_reasoning.data.prepare"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def get_ready() -> None:
    """Begin to import what draws, in a thread: it takes as long as the drawing, and the workers leave the time."""
    Thread(target=import_module, args=("matplotlib.figure",), daemon=True).start()


def write_report(folder: Path, statistics: Statistics, *, seq_length: int) -> None:
    """Write `lengths.png` and `report.html`."""
    _draw_lengths(folder / _PICTURE, statistics, seq_length=seq_length)
    names = sorted({name for outcomes in statistics.outcomes.values() for name in outcomes} - {KEPT})
    page = (
        page_environment()
        .get_template("report.html.jinja")
        .render(
            statistics=statistics,
            names=names,
            kept=KEPT,
            seq_length=seq_length,
            picture=b64encode((folder / _PICTURE).read_bytes()).decode(),
        )
    )
    write_text(folder / "report.html", page)


def _draw_lengths(path: Path, statistics: Statistics, *, seq_length: int) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    longest = max(map(len, statistics.histogram.values()))
    below = [0] * longest
    for name, counts in statistics.histogram.items():
        heights = [*counts, *[0] * (longest - len(counts))]
        axes.bar(range(longest), heights, bottom=below, width=0.9, label=name)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axes.set_title(f"Rows by length, at most {seq_length:,} tokens", loc="left", fontsize=12)
    axes.set_xticks(range(longest), [f"{2**octave:,}" for octave in range(longest)], rotation=45, fontsize=8)
    axes.set_xlabel("tokens, from")
    axes.spines[["top", "right"]].set_visible(False)
    if len(statistics.histogram) > 1:
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, format="png", metadata={"Software": None})
