"""Measure the memory of the process that prepares, apart from its workers', on made-up shards of short rows.

    python benchmarks/driver_memory.py            # 0.5, 1, 2 and 5 million rows
    python benchmarks/driver_memory.py --quick    # 0.1 and 0.5

Shards with random hashes are written by what would have waited for workers; all that follows is the product's own code:
duplicates, selection, statistics, the order of both splits, their tokens and the manifest. Memory is what a process has
for itself (RssAnon), not the pages of files that it maps, which the system takes back when it needs them. Each number
of rows has a process of its own. The last line is a JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from nemo_reasoning.config import CONF_DIR, load_settings
from nemo_reasoning.config.data import PrepareSettings, RowSampling
from nemo_reasoning.data.prepare.inputs import Subset
from nemo_reasoning.data.prepare.output import write_output
from nemo_reasoning.data.prepare.plan import Preparation
from nemo_reasoning.data.prepare.select import Selection
from nemo_reasoning.data.prepare.shards import KEPT, ROW, Shard
from nemo_reasoning.data.prepare.units import Unit

ROWS, TOKENS = 50_000, 8  # of a shard, of a row


def main() -> None:
    """Measure, print a table, and last of all one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to half a million rows")
    parser.add_argument("--shards", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.shards:
        print(json.dumps(measured(chosen.shards)))
        return
    table, found = Table("million rows", "MB", "seconds"), {}
    for millions in (0.1, 0.5) if chosen.quick else (0.5, 1, 2, 5):
        command = [sys.executable, __file__, "--shards", str(round(millions * 1e6 / ROWS))]
        found[str(millions)] = told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        table.add_row(str(millions), str(told["mb"]), str(told["seconds"]))
    Console().print(table)
    first, last = min(found, key=float), max(found, key=float)
    slope = (found[last]["mb"] - found[first]["mb"]) / (float(last) - float(first))
    at_fifty = round(found[last]["mb"] + slope * (50 - float(last)))
    print(json.dumps({"rows": found, "bytes_a_row": round(slope, 1), "mb_at_50_million": at_fifty}))


def measured(shards: int) -> dict[str, float]:
    """Return the largest memory and the seconds of a preparation of so many shards."""
    peak, began, done = [0.0], time.monotonic(), threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], own_memory())

    watching = threading.Thread(target=watch)
    watching.start()
    with tempfile.TemporaryDirectory(prefix="driver-") as name:
        prepare(Path(name), shards)
    done.set()
    watching.join()
    return {"mb": round(peak[0]), "seconds": round(time.monotonic() - began)}


def prepare(folder: Path, shards: int) -> None:
    """Take the rows of made-up shards, and write the folder."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("prepare_data", overrides=["data=jsonl", "data.paths=[made up]", "data.messages=false"])
    settings = load_settings(config, PrepareSettings)
    (folder / "out").mkdir()
    units = (Unit("rows", number, (), RowSampling.block) for number in range(shards))

    def made(wave: list[Unit]) -> Iterator[Path]:
        for unit in wave:
            shard(unit.number).save(folder / unit.name, extra={})
            yield folder / unit.name

    with (folder / "quarantine").open("w") as lines:
        selection = Selection(settings.data, quarantine=lines, origins={}, scratch=folder, tell=lambda line: None)
        selection.run([(Subset("rows", (), None), units)], made)
    asked = Preparation(settings.data, None, TOKENS, folder / "out", lambda line: None)  # type: ignore[arg-type]  # no text is read
    write_output(folder / "out", preparation=asked, selection=selection, inputs={}, backend="none", scratch=folder)


def shard(number: int) -> Shard:
    """Return rows that are all different."""
    random = np.random.default_rng(number)
    rows = np.zeros(ROWS, ROW)
    rows["place"], rows["completion"] = np.arange(ROWS), TOKENS // 2
    for name in ("content", "question", "order"):
        rows[name] = random.integers(0, 2**64, ROWS, dtype=np.uint64)
    rows["validation"] = random.random(ROWS) < 0.05
    ends = np.arange(ROWS + 1, dtype=np.int64)
    return Shard(
        tokens=np.zeros(ROWS * TOKENS, np.int32),
        loss_mask=np.ones(ROWS * TOKENS, np.bool_),
        token_ends=ends * TOKENS,
        messages=np.zeros(0, np.uint8),
        message_ends=ends * 0,
        rows=rows,
        outcomes=np.zeros(ROWS, np.uint16),
        modes=np.ones(ROWS, np.uint8),
        names=[KEPT],
        licenses=["CC-BY-4.0"],
        quarantine=[],
        lines=ROWS,
        encoded_again=0,
        unknown={},
        unused_answers=0,
    )


def own_memory() -> float:
    """Return the MB that this process alone holds."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


if __name__ == "__main__":
    main()
