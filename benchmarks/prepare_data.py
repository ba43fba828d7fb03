"""Measure data preparation against a guide's `datasets` script, and against the tokenizer alone.

All three take the same corpus, tokenizer and two workers, one after the other. The first two are
timed as a user would, start of the program included, once each has run on a few rows: the first run on a machine
converts the tokenizer and reads the packages from disk. `encode_batch` is timed without its start.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from corpus import write_corpus
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
WORKERS = 2


def main() -> None:
    """Measure, print a table, and last of all one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 MB instead of 200 MB and 1 GB")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory(prefix="prepare-") as scratch:
        folder = Path(scratch)
        for program in ("ours", "guide"):
            _run(program, write_corpus(folder / "few.jsonl", megabytes=0.5), folder / f"few-{program}")
        corpus = write_corpus(folder / "small.jsonl", megabytes=20 if quick else 200)
        megabytes = corpus.stat().st_size / 1e6
        ours, peak, driver = _run("ours", corpus, folder / "ours")
        larger = write_corpus(folder / "large.jsonl", megabytes=40 if quick else 1000)
        _, larger_peak, _ = _run("ours", larger, folder / "ours-large")
        larger.unlink()
        guide, guide_peak, _ = _run("guide", corpus, folder / "guide")
        alone = _encode_batch(corpus, folder)
        manifest = json.loads((folder / "ours" / "manifest.json").read_text())
    result = {
        "corpus_mb": round(megabytes, 1),
        "ours_mb_s": round(megabytes / ours, 2),
        "guide_mb_s": round(megabytes / guide, 2),
        "tokenizers_mb_s": round(alone, 2),
        "ours_over_guide": round(guide / ours, 2),
        "ours_over_tokenizers": round(megabytes / ours / alone, 2),
        "peak_rss_mb": round(peak),
        "peak_rss_mb_large": round(larger_peak),
        "driver_peak_rss_mb": round(driver),
        "guide_peak_rss_mb": round(guide_peak),
        "tokenizer": manifest["counts"]["tokenizer"],
    }
    table = Table("program", "MB/s", "peak RSS of a worker, MB", title=f"{megabytes:.0f} MB, {WORKERS} workers")
    table.add_row("ours, end to end", str(result["ours_mb_s"]), f"{peak:.0f} (larger corpus: {larger_peak:.0f})")
    table.add_row("guide: datasets, end to end", str(result["guide_mb_s"]), f"{guide_peak:.0f}")
    table.add_row("tokenizers.encode_batch alone", str(result["tokenizers_mb_s"]), "")
    Console().print(table)
    print(json.dumps(result))


def _run(program: str, corpus: Path, out: Path) -> tuple[float, float, float]:
    """Return a program's seconds, and the peak resident MB of its largest worker and of itself."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
        "HF_DATASETS_CACHE": str(out.parent / "cache"),
        "RAYON_NUM_THREADS": str(WORKERS),
    }
    command = [sys.executable, str(HERE / f"prepare_{program}.py"), str(corpus), str(out), str(WORKERS)]
    began, workers, itself = time.perf_counter(), 0.0, 0.0
    with subprocess.Popen(command, env=environment, stdout=sys.stderr) as process:
        observed = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                itself = max(itself, observed.memory_info().rss / 1e6)
                for child in observed.children(recursive=True):
                    workers = max(workers, child.memory_info().rss / 1e6)
            except psutil.NoSuchProcess:
                continue
            finally:
                time.sleep(0.1)
    if process.returncode:
        sys.exit(f"{program} failed")
    return time.perf_counter() - began, workers, itself


def _encode_batch(corpus: Path, folder: Path) -> float:
    """Return the MB of JSON Lines a second whose text `tokenizers` alone encodes, two threads at work."""
    command = [sys.executable, str(HERE / "prepare_tokenizer.py"), str(corpus), str(folder), str(WORKERS)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "RAYON_NUM_THREADS": str(WORKERS)}
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return corpus.stat().st_size / 1e6 / float(answer.split()[-1])


if __name__ == "__main__":
    main()
