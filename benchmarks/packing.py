"""Measure the packing plan against NeMo's first-fit-decreasing on log-normal lengths."""

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from nemo_reasoning.data.packing import pack, pack_in_order

CAPACITY = 8192
MANY = 500_000
Result = TypeVar("Result")


def main() -> None:
    """Measure, print a table, and last of all one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 lengths for NeMo instead of 20,000")
    count = 2_000 if parser.parse_args().quick else 20_000
    few, many = _lengths(count), _lengths(MANY)
    seconds, plan = _timed(lambda: pack(many, CAPACITY))
    ordered_seconds, ordered = _timed(lambda: pack_in_order(many, CAPACITY, window=4096))
    ours_seconds, ours = _timed(lambda: pack(few, CAPACITY))
    from nemo.utils.sequence_packing_utils import first_fit_decreasing

    nemo_seconds, nemo = _timed(lambda: first_fit_decreasing(few.tolist(), CAPACITY))
    least = math.ceil(few.sum() / CAPACITY)
    result = {
        "efficiency": round(plan.efficiency(many), 6),
        "seconds_500k": round(seconds, 3),
        "efficiency_in_order": round(ordered.efficiency(many), 6),
        "seconds_500k_in_order": round(ordered_seconds, 3),
        "bins_ours": len(ours),
        "bins_nemo": len(nemo),
        "bins_least": least,
        "seconds_ours": round(ours_seconds, 3),
        "seconds_nemo": round(nemo_seconds, 3),
    }
    table = Table("plan", "rows", "bins", "full", "seconds", title=f"bins of {CAPACITY}, log-normal lengths")
    for name, lengths, bins, took in (
        ("ours", many, len(plan), seconds),
        ("ours, in order", many, len(ordered), ordered_seconds),
        ("ours", few, len(ours), ours_seconds),
        ("NeMo", few, len(nemo), nemo_seconds),
    ):
        full = lengths.sum() / bins / CAPACITY
        table.add_row(name, f"{len(lengths):,}", f"{bins:,}", f"{full:.3%}", f"{took:.2f}")
    Console().print(table)
    print(json.dumps(result))


def _lengths(count: int) -> NDArray[np.int64]:
    """Return log-normal lengths with a mean of about 2,000, none longer than a bin."""
    drawn = np.random.default_rng(0).lognormal(math.log(2000) - 0.5, 1.0, count)
    return np.clip(drawn.astype(np.int64), 16, CAPACITY)


def _timed(function: Callable[[], Result]) -> tuple[float, Result]:
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


if __name__ == "__main__":
    main()
