"""Run recipes as a user does, on a tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from nemo_reasoning.models.importer import PROCESS_GROUP_VARIABLES

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "model=hf_local",
    "data=builtin",
    "model.template=chatml",
    "data.rows=300",
    "hardware=cpu",
    "trainer.precision=32",
    "trainer.seq_length=256",
    "trainer.micro_batch_size=4",
    "trainer.global_batch_size=8",
    "peft.dim=4",
    "peft.alpha=8",
    "peft.dropout=0.1",
    "logger=none",
    "callbacks.samples_interval=0",
]


def command(recipe: str, *overrides: str) -> list[str]:
    """Return the command line of a recipe."""
    return [sys.executable, str(ROOT / "recipes" / f"{recipe}.py"), *overrides]


def tiny_overrides(model: Path, out: Path, *more: str) -> list[str]:
    """Return the overrides of a short training run of the tiny model."""
    return [*TINY, f"model.source={model}", f"output_dir={out}", f"cache_dir={model.parent / 'cache'}", *more]


def environment() -> dict[str, str]:
    """Return an environment in which the package under test is found first.

    Lightning leaves the port of its process group in the environment of a test process that trained.
    """
    inherited = {key: value for key, value in os.environ.items() if key not in PROCESS_GROUP_VARIABLES}
    return {**inherited, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def run(recipe: str, *overrides: str, succeeds: bool = True) -> str:
    """Run a recipe and return what it printed.

    Raises:
        AssertionError: Its exit code says the opposite of `succeeds`.
    """
    done = subprocess.run(
        command(recipe, *overrides), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == succeeds, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def records(out: Path, key: str) -> dict[int, Any]:
    """Return a metric of a run by step."""
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    found = (json.loads(line) for line in lines if line.endswith("\n"))
    return {record["step"]: record[key] for record in found if key in record}
