"""The report of a prepared folder: a picture of the lengths, and one page that needs nothing else."""

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_reasoning.artifacts import page_template, write_text
from nemo_reasoning.data.prepare.rows import Rows
from nemo_reasoning.data.prepare.shards import KEPT, QUARANTINED

_PICTURE = "lengths.png"


@dataclass
class Group:
    """Rows of one subset and mode.

    Attributes:
        subset: The subset.
        mode: "on" or "off".
        rows: How many.
        turned_off: How many of them had a trace that was taken out.
        tokens: All their tokens.
        completion_tokens: Those that are supervised.
        longest: Tokens of the longest.
    """

    subset: str
    mode: str
    rows: int = 0
    turned_off: int = 0
    tokens: int = 0
    completion_tokens: int = 0
    longest: int = 0

    def count(self, facts: NDArray[np.void]) -> None:
        """Add rows of dtype TAKEN."""
        self.rows += len(facts)
        self.turned_off += int(facts["turned_off"].sum())
        self.tokens += int(facts["length"].sum(dtype=np.int64))
        self.completion_tokens += int(facts["completion"].sum(dtype=np.int64))
        self.longest = max(self.longest, int(facts["length"].max(initial=0)))


@dataclass(frozen=True)
class Statistics:
    """Numbers of a prepared folder.

    Attributes:
        outcomes: For each subset, how many rows met which end; their sum is the rows read.
        groups: Kept rows by subset and mode.
        licenses: Kept rows of each subset by licence.
        splits: For each split its rows, tokens and supervised tokens.
        histogram: Kept rows by length for each subset: the n-th number counts rows of 2**n to 2**(n + 1) - 1 tokens.
    """

    outcomes: Mapping[str, Mapping[str, int]]
    groups: list[Group]
    licenses: Mapping[str, Mapping[str, int]]
    splits: Mapping[str, Mapping[str, Any]]
    histogram: Mapping[str, list[int]]

    @classmethod
    def of(
        cls,
        rows: Rows,
        *,
        outcomes: Mapping[str, Mapping[str, int]],
        licenses: Mapping[str, Mapping[str, int]],
        splits: Mapping[str, Mapping[str, Any]],
    ) -> "Statistics":
        """Count."""
        groups = {(name, mode): Group(name, mode) for name in rows.subsets for mode in ("on", "off")}
        octaves = {name: Counter[int]() for name in rows.subsets}
        for _, facts in rows.parts():
            subset = rows.subset_of(facts)
            for number, name in enumerate(rows.subsets):
                own = facts[subset == number]
                octaves[name].update(np.log2(own["length"]).astype(np.int64).tolist())
                for mode in ("on", "off"):
                    groups[name, mode].count(own[own["thinking"] == (mode == "on")])
        named = {
            name: {license or "unknown": found[license] for license in sorted(found)}
            for name, found in sorted(licenses.items())
        }
        histogram = {name: [found[octave] for octave in range(max(found) + 1)] for name, found in octaves.items()}
        return cls(outcomes, [group for group in groups.values() if group.rows], named, splits, histogram)

    @property
    def read(self) -> int:
        """Rows read, whatever became of them."""
        return sum(sum(outcomes.values()) for outcomes in self.outcomes.values())

    @property
    def kept(self) -> int:
        """Rows written."""
        return sum(outcomes.get(KEPT, 0) for outcomes in self.outcomes.values())

    @property
    def quarantined(self) -> int:
        """Unusable rows."""
        found = (item for outcomes in self.outcomes.values() for item in outcomes.items())
        return sum(count for name, count in found if name.startswith(QUARANTINED))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as the manifest records it; for training, the splits come first."""
        return {
            **self.splits,
            "read": self.read,
            "kept": self.kept,
            "quarantined": self.quarantined,
            "outcomes": self.outcomes,
            "groups": [vars(group) for group in self.groups],
            "licenses": self.licenses,
            "rows_by_length_octave": self.histogram,
        }


def heavy_losses(outcomes: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    """Return which modes of which subsets lost more than half of their rows to one filter.

    Args:
        outcomes: By subset, mode and name.
    """
    found = []
    for subset, modes in outcomes.items():
        for mode, ends in modes.items():
            read = sum(ends.values())
            name, lost = max(ends.items(), key=lambda end: end[1] * (end[0] != KEPT))
            if name != KEPT and 2 * lost > read and mode != "unknown":
                kept = ends.get(KEPT, 0)
                found.append(f"{subset}, thinking {mode}: {name} took {lost:,} of {read:,} rows, {kept:,} are kept")
    return found


def get_ready() -> None:
    """Begin to import what draws, in a thread: it takes as long as the drawing, and the workers leave the time."""
    Thread(target=import_module, args=("matplotlib.figure",), daemon=True).start()


def write_report(folder: Path, statistics: Statistics, *, seq_length: int) -> None:
    """Write `lengths.png` and `report.html`."""
    _draw_lengths(folder / _PICTURE, statistics, seq_length=seq_length)
    names = sorted({name for outcomes in statistics.outcomes.values() for name in outcomes} - {KEPT})
    page = page_template("nemo_reasoning.data.prepare", "report.html.jinja").render(
        statistics=statistics,
        names=names,
        kept=KEPT,
        seq_length=seq_length,
        picture=b64encode((folder / _PICTURE).read_bytes()).decode(),
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
