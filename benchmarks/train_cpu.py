"""Measure LoRA on SmolLM2-135M on a CPU: this package, the guide's Trainer with PEFT, and TRL's SFTTrainer.

One after the other, each in a process of its own: the same rows in the same steps of 16, the same supervised
tokens, rank 16 on all linears, bfloat16, 2 threads. Rows have log-normal lengths, and how long they are decides how
much padding costs: long and short ones are measured. Steps are timed, the first one left out; start-up is not.
The losses are those of the three adapters, asked by transformers on rows none has seen. The peers need an
environment of their own: `make peers`.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from corpus import row, text
from rich.console import Console
from rich.table import Table

from nemo_reasoning.data.store import IGNORED_LABEL, TokenStore
from nemo_reasoning.models.hub import PACKAGED_MODEL, fetch_base
from nemo_reasoning.training.batching import BatchPlan
from nemo_reasoning.training.loggers import read_metrics

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
CACHE = Path("~/.cache/nemo_reasoning").expanduser()
GLOBAL_BATCH_SIZE, SEQ_LENGTH, SEED, THREADS = 16, 3072, 1234, 2
TRACES = {"long": 2000, "short": 750}  # characters on average
LONGEST = 8000  # characters of a trace; it fits into a sequence
NAMES = {
    "ours": "this package, packed",
    "hf": "Trainer + PEFT, padded to 8, 2 x 8",
    "trl": "TRL SFTTrainer, 1 x 16",
    "trl_flat": "TRL SFTTrainer, 4 x 4 padding-free",
}


@dataclass(frozen=True)
class Result:
    """What a program did.

    Attributes:
        seconds: Of each optimiser step.
        losses: Of each optimiser step, as the program reports them.
        peak_rss_gb: Peak resident memory of its process.
        adapter: What it trained, in PEFT's format.
    """

    seconds: list[float]
    losses: list[float]
    peak_rss_gb: float
    adapter: Path


def main() -> None:
    """Measure, print a table, and last of all one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 steps instead of 5")
    parser.add_argument("--rows", nargs="+", choices=TRACES, default=list(TRACES), help="lengths of rows to measure")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=["ours", "hf", "trl"], help="programs to run")
    arguments = parser.parse_args()
    if not PEERS.is_file():
        sys.exit(f"{PEERS} is missing; run `make peers` first")
    steps = 3 if arguments.quick else 5
    results = {rows: _measure(TRACES[rows], steps=steps, only=arguments.only) for rows in arguments.rows}
    print(json.dumps(results))


def _measure(mean: int, *, steps: int, only: list[str]) -> dict[str, Any]:
    """Train on rows of a mean length with each program, and print a table."""
    with tempfile.TemporaryDirectory(prefix="train-") as scratch:
        folder = Path(scratch)
        base = fetch_base(PACKAGED_MODEL, revision=None, cache_dir=CACHE).path
        write_rows(folder / "rows.jsonl", count=GLOBAL_BATCH_SIZE * steps + 100, mean=mean)
        _train_ours(folder, steps=1, out=folder / "warm-up")  # converts the base model, once per machine
        ours = _train_ours(folder, steps=steps, out=folder / "ours")
        supervised = _write_tokens(folder, steps)
        found = {"ours": ours} | {name: _train_peer(name, base, folder) for name in only if name != "ours"}
        losses = {name: _loss(base, result.adapter, folder) for name, result in found.items()}
    return _report(found, losses, supervised, mean=mean)


def write_rows(path: Path, *, count: int, mean: int) -> None:
    """Write rows in the schema of the Nemotron dataset, of log-normal lengths, `mean` characters on average."""
    numbers = random.Random(SEED)
    with path.open("w", encoding="utf-8") as lines:
        for number in range(count):
            size = min(LONGEST, int(numbers.lognormvariate(math.log(mean) - 0.5, 1.0)))
            trace, answer = text(size, ["return total"], numbers)[:size], text(60, [""], numbers)[:60]
            question = f"Problem {number}. {text(40, [''], numbers)[:80]}"
            lines.write(json.dumps(row(question, f"<think>\n{trace}\n</think>\n\n{answer}", thinks=True)) + "\n")


def _train_ours(folder: Path, *, steps: int, out: Path) -> Result:
    overrides = [
        *("data=jsonl", f"data.paths=[{folder / 'rows.jsonl'}]", "data.validation_share=0.1", "hardware=cpu"),
        *(f"trainer.max_steps={steps}", f"trainer.seq_length={SEQ_LENGTH}", "trainer.micro_batch_size=1"),
        *(f"trainer.global_batch_size={GLOBAL_BATCH_SIZE}", f"trainer.seed={SEED}", "logger=none", f"output_dir={out}"),
        *("callbacks.samples_interval=0", "peft.dim=16", "peft.alpha=32", "peft.rslora=false", "optim.lr=1e-3"),
        *("optim.warmup_ratio=0", "optim.min_lr_ratio=1.0", f"trainer.eval_interval={steps}"),
    ]
    peak = _run([sys.executable, str(ROOT / "recipes" / "sft_lora.py"), *overrides])[1]
    _run([sys.executable, str(ROOT / "recipes" / "export.py"), f"checkpoint={out}", "formats=[hf_peft]"])
    records = [record for record in read_metrics(out / "metrics.jsonl") if "step_seconds" in record]
    adapter = next(out.rglob("adapter_config.json")).parent
    return Result([r["step_seconds"] for r in records], [r["loss"] for r in records], peak, adapter)


def _write_tokens(folder: Path, steps: int) -> list[int]:
    """Write the rows as our run draws them, and some for the loss; return the supervised tokens of each step."""
    data = folder / "ours" / "data"
    train, validation = (TokenStore.open(data / split) for split in ("train", "validation"))
    plan = BatchPlan(
        lengths=train.lengths - 1,
        supervised=train.supervised,
        micro_batch_size=1,
        global_batch_size=GLOBAL_BATCH_SIZE,
        data_parallel_size=1,
        pad_to=8,
        seed=SEED,
        repeat=True,
    )
    drawn = [plan.rows(step) for step in range(steps)]
    _write(folder / "train.jsonl", train, np.concatenate(drawn).tolist())
    _write(folder / "validation.jsonl", validation, list(range(len(validation))))
    return [int(train.supervised[rows].sum()) for rows in drawn]


def _write(path: Path, store: TokenStore, rows: list[int]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        for row in rows:
            ids, mask = store[row].ids, store[row].loss_mask
            labels = np.where(mask, ids, IGNORED_LABEL)
            lines.write(json.dumps({"input_ids": ids.tolist(), "labels": labels.tolist()}) + "\n")


def _train_peer(name: str, base: Path, folder: Path) -> Result:
    said, peak = _peer(name, base, folder / "train.jsonl", folder / name)
    return Result(said["step_seconds"], said["losses"], peak, folder / name)


def _loss(base: Path, adapter: Path, folder: Path) -> float:
    return float(_peer("loss", base, folder / "validation.jsonl", adapter)[0]["loss"])


def _peer(name: str, base: Path, rows: Path, out: Path) -> tuple[dict[str, Any], float]:
    printed, peak = _run([str(PEERS), str(ROOT / "benchmarks" / "train_peer.py"), name, str(base), str(rows), str(out)])
    said: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return said, peak


def _run(command: list[str]) -> tuple[str, float]:
    """Run a program; return what it printed and its peak resident memory in GB."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=printed, stderr=sys.stderr, text=True)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        said = printed.read()
    if process.returncode:
        sys.exit(f"{command[1]} failed with {process.returncode}:\n{said}")
    return said, usage.ru_maxrss * 1024 / 1e9


def _report(found: dict[str, Result], losses: dict[str, float], supervised: list[int], *, mean: int) -> dict[str, Any]:
    rates = {name: sum(supervised[1:]) / sum(result.seconds[1:]) for name, result in found.items()}
    table = Table(
        "program", "supervised tokens/s", "held-out loss", "peak RSS, GB", title=f"traces of {mean} characters"
    )
    for name, result in found.items():
        table.add_row(NAMES[name], f"{rates[name]:.0f}", f"{losses[name]:.4f}", f"{result.peak_rss_gb:.2f}")
    Console().print(table)
    trl = max((name for name in found if name.startswith("trl")), key=rates.__getitem__, default=None)
    peers = [name for name in ("hf", trl) if name in found]
    return {
        "ours_tokens_s": round(rates["ours"], 1),
        **{f"{name}_tokens_s": round(rates[name], 1) for name in found if name != "ours"},
        "ours_over_hf": round(rates["ours"] / rates["hf"], 2) if "hf" in found else None,
        "ours_over_trl": round(rates["ours"] / rates[trl], 2) if trl else None,
        "loss_gap": round(max(abs(losses["ours"] / losses[name] - 1) for name in peers), 4) if peers else None,
        "rss_ratio": round(found["ours"].peak_rss_gb / found["hf"].peak_rss_gb, 2) if "hf" in found else None,
    }


if __name__ == "__main__":
    main()
