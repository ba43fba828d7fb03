"""How much faster a batch is than one question at a time, and what a kill costs.

`python benchmarks/evaluate.py [--quick]` measures SmolLM2-135M on held-out problems, on the CPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nemo_reasoning.data.builtin import Problem, held_out
from nemo_reasoning.data.chat import load_template
from nemo_reasoning.evaluation.runner import evaluate_problems
from nemo_reasoning.evaluation.samples import Sample
from nemo_reasoning.export.tokenizer import strip_generation
from nemo_reasoning.inference.engine import Engine
from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.models.hub import PACKAGED_MODEL, fetch_base

ROOT = Path(__file__).parents[1]
TOKENS = 64


def timed(engine: Engine, groups: list[list[Problem]]) -> tuple[float, list[Sample]]:
    """Return the seconds to answer every group, one after the other, and the samples."""
    samples: list[Sample] = []
    began = time.perf_counter()
    for group in groups:
        samples += evaluate_problems(engine, group, max_new_tokens=TOKENS).samples
    return time.perf_counter() - began, samples


def speed(model: Path, *, count: int) -> dict[str, Any]:
    """Answer the same questions in one batch per mode and one at a time."""
    engine = HFEngine(model, chat_template=strip_generation(load_template("chatml")), device="cpu")
    problems = held_out(count=count, seed=0)
    evaluate_problems(engine, problems[:2], max_new_tokens=4)  # warm up
    batched, together = timed(engine, [problems])
    single, alone = timed(engine, [[problem] for problem in problems])
    tokens = sum(sample.completion_tokens for sample in alone)
    return {
        "questions": len(alone),
        "single_seconds": single,
        "batched_seconds": batched,
        "single_tokens_per_second": tokens / single,
        "batched_tokens_per_second": sum(sample.completion_tokens for sample in together) / batched,
        "batched_over_single": single / batched,
    }


def restart(model: Path, folder: Path, *, count: int) -> dict[str, Any]:
    """Kill the recipe after its first answers, run it again, and compare with an uninterrupted run."""
    log = folder / "killed" / "model" / "builtin.jsonl"
    process = subprocess.Popen(
        command(model, folder / "killed", count),
        env=environment(),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (log.is_file() and log.read_bytes().count(b"\n")):
        if process.poll() is not None:
            raise RuntimeError("the recipe ended before it could be killed; raise the count")
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = log.read_bytes()
    for name in ("killed", "whole"):
        subprocess.run(command(model, folder / name, count), env=environment(), check=True, stdout=subprocess.DEVNULL)
    keys = [(line["question"], line["mode"]) for line in map(json.loads, log.read_text().splitlines())]
    return {
        "kept_answers": kept.count(b"\n"),
        "repeated_answers": len(keys) - len(set(keys)),
        "kept_unchanged": log.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1]),
        "same_report": timeless(folder / "killed") == timeless(folder / "whole"),
    }


def command(model: Path, out: Path, count: int) -> list[str]:
    """Return the command line of a small evaluation."""
    overrides = [f"checkpoint={model}", "template=chatml", f"output_dir={out}", f"benchmark.builtin.count={count}"]
    overrides += [f"protocol.max_tokens={TOKENS // 2}", "protocol.thinking_on.temperature=0"]
    return [sys.executable, str(ROOT / "recipes" / "evaluate.py"), *overrides]


def environment() -> dict[str, str]:
    """Return an environment in which this package is found."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def timeless(folder: Path) -> Any:
    """Return a report without what the clock and the folder's name say."""
    report = json.loads((folder / "report.json").read_text())
    for score in (score for found in report["benchmarks"].values() for score in found["scores"]):
        del score["mean_seconds"]
    del report["settings"]["output_dir"]
    return report


def main() -> None:
    """Print a table, and as the last line the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the questions")
    quick = parser.parse_args().quick
    cache = Path("~/.cache/nemo_reasoning").expanduser()
    model = fetch_base(PACKAGED_MODEL, revision=None, cache_dir=cache).path
    found = speed(model, count=12 if quick else 48)
    with tempfile.TemporaryDirectory() as scratch:
        found |= restart(model, Path(scratch), count=12 if quick else 24)
    table = Table("measured", "value")
    for name, value in found.items():
        table.add_row(name, f"{value:.2f}" if isinstance(value, float) else str(value))
    Console().print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
