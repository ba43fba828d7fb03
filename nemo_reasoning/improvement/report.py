"""The table and the curve of rounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from nemo_reasoning.artifacts import page_template, write_json, write_text
from nemo_reasoning.evaluation.report.tables import interval
from nemo_reasoning.evaluation.report.training import MODES
from nemo_reasoning.evaluation.samples import Evaluation
from nemo_reasoning.evaluation.scores import Score, score
from nemo_reasoning.reasoning.messages import Mode

_HEADINGS = ("round", "sampled", "kept", "right", "%", "interval", "tokens", "thinking", "off")


@dataclass(frozen=True, kw_only=True)
class Round:
    """A model between two trainings.

    Attributes:
        number: Trainings done on answers of its own; 0 is the model at the start.
        evaluation: Its answers to the held-out problems, in both modes.
        counts: What became of the answers that it was trained on; empty at the start.
    """

    number: int
    evaluation: Evaluation
    counts: dict[str, int]

    def score(self, mode: Mode) -> Score:
        """Count the answers of a mode."""
        return score(self.evaluation.of(mode))

    def in_words(self) -> str:
        """Return right answers and their length in a line."""
        on, off = self.score("on"), self.score("off")
        return f"thinking on {on.correct} of {on.n} right, {_length(on)} an answer; off {off.correct} of {off.n}"

    def to_dict(self) -> dict[str, Any]:
        """Return what rounds.json holds."""
        scores: dict[str, Any] = {mode: self.score(mode).to_dict() for mode in MODES}
        return {"round": self.number, "answers": self.counts, **scores}


def _length(found: Score) -> str:
    return "tokens not counted" if found.mean_tokens is None else f"{found.mean_tokens:.1f} tokens"


def round_table(rounds: Sequence[Round]) -> Table:
    """Return a row a round: what it was trained on, accuracy in both modes, and the length of answers."""
    table = Table(
        title="held-out problems, thinking on",
        caption="95 % Wilson intervals",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading == "round" else "right")
    for one in rounds:
        table.add_row(*_cells(one))
    return table


def _cells(one: Round) -> list[str]:
    on, off = one.score("on"), one.score("off")
    tokens = ("" if mean is None else f"{mean:.1f}" for mean in (on.mean_tokens, on.mean_reasoning_tokens))
    return [
        str(one.number),
        *(f"{one.counts[name]:,}" if name in one.counts else "" for name in ("sampled", "kept")),
        *(f"{on.correct}/{on.n}", f"{100 * on.accuracy:.1f}", interval(on.accuracy_interval)),
        *tokens,
        f"{off.correct}/{off.n}",
    ]


def write_rounds(rounds: Sequence[Round], out: Path) -> None:
    """Write rounds.json, rounds.png and report.html."""
    from nemo_reasoning.evaluation.report.figures import data_uri, draw_rounds

    write_json(out / "rounds.json", {"rounds": [one.to_dict() for one in rounds]})
    found = [one.score("on") for one in rounds]
    curve = [(one.accuracy, one.accuracy_interval) for one in found]
    draw_rounds(curve, [one.mean_tokens for one in found], out / "rounds.png")
    page = page_template("nemo_reasoning.evaluation.report", "rounds.html.jinja").render(
        name=out.resolve().name,
        headings=_HEADINGS,
        rows=[_cells(one) for one in rounds],
        counts=[(one.number, one.counts) for one in rounds if one.counts],
        curve=data_uri(out / "rounds.png"),
    )
    write_text(out / "report.html", page)
