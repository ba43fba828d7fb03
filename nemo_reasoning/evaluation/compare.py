"""Two evaluations side by side, question by question."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nemo_reasoning.errors import ConfigError, DataError
from nemo_reasoning.evaluation.evaluate import REPORT
from nemo_reasoning.evaluation.report.tables import percent, points, points_between
from nemo_reasoning.evaluation.results import difference
from nemo_reasoning.evaluation.samples import Evaluation
from nemo_reasoning.evaluation.scores import score


def compare(folders: Sequence[Path], *, seed: int, console: Console) -> None:
    """Print the paired difference of two evaluations on everything both measured.

    Of a folder with a base model and a trained one, the trained one counts.

    Args:
        folders: Two that recipes/evaluate.py wrote.
        seed: Of the bootstrap.
        console: Where the table goes.

    Raises:
        ConfigError: There are not two folders.
        DataError: A folder holds no evaluation, or the two have nothing in common.
    """
    if len(folders) != 2:
        raise ConfigError(f"compare={[str(folder) for folder in folders]}: give two folders")
    first, second = (_read(folder) for folder in folders)
    table = Table(caption="gain: percentage points, 95 % interval clustered by question; p: McNemar's test")
    for heading in ("benchmark", "thinking", "questions", "A", "B", "gain of B", "p"):
        table.add_column(heading, justify="left" if heading in ("benchmark", "thinking") else "right")
    for benchmark in (name for name in first if name in second):
        _add_rows(table, benchmark, first[benchmark], second[benchmark], seed=seed)
    if not table.rows:
        raise DataError(f"{folders[0]} and {folders[1]} share no benchmark in the same mode; evaluate one in both")
    console.print(f"A: {folders[0]}\nB: {folders[1]}")
    console.print(table)


def _read(folder: Path) -> dict[str, Evaluation]:
    """Return the samples of an evaluation by benchmark, of the model that matters."""
    if not (folder / REPORT).is_file():
        raise DataError(f"{folder} holds no {REPORT}; point at a folder that recipes/evaluate.py wrote")
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    found = {}
    for benchmark, result in report["benchmarks"].items():
        model = result["scores"][-1]["model"]
        found[benchmark] = Evaluation.load(folder / model / f"{benchmark}.jsonl")
    return found


def _add_rows(table: Table, benchmark: str, first: Evaluation, second: Evaluation, *, seed: int) -> None:
    for mode, budget in dict.fromkeys((sample.mode, sample.budget) for sample in first.samples):
        before, after = first.at(mode, budget), second.at(mode, budget)
        if not after or not {sample.question for sample in before} & {sample.question for sample in after}:
            continue
        found = difference(before, after, seed=seed)
        table.add_row(
            benchmark,
            mode if budget is None else f"{mode}, {budget}",
            str(found.questions),
            percent(score(before).accuracy),
            percent(score(after).accuracy),
            f"{points(found.difference)}  \\[{points_between(found.interval)}]",
            f"{found.p_value:.2g}",
        )
