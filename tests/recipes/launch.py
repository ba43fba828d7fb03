"""Run recipes as a user does, on a tiny model."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

from forked import Forked, Warm

from nemo_reasoning.models.importer import PROCESS_GROUP_VARIABLES

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "model=hf_local",
    "data=builtin",
    "model.template=chatml",
    "data.rows=300",
    "data.workers=1",
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


class Process(Forked):
    """A recipe that runs, forked from a process that has imported NeMo."""

    def __init__(
        self, recipe: str, *overrides: str, stdout: IO[bytes], stderr: IO[bytes], place: Mapping[str, str] | None = None
    ) -> None:
        _, *argv = command(recipe, *overrides)
        super().__init__(warm(), argv, stdout=stdout, stderr=stderr, environment=environment() | dict(place or {}))


@cache
def warm() -> Warm:
    """Return the process that has imported what recipes do, for others to be forked from."""
    return Warm(environment())


def run(recipe: str, *overrides: str, succeeds: bool = True) -> str:
    """Run a recipe and return what it printed.

    Raises:
        AssertionError: Its exit code says the opposite of `succeeds`.
    """
    code, *texts = warm().run(command(recipe, *overrides)[1:], environment())
    assert (code == 0) == succeeds, f"exit code {code}\n{texts[0]}\n{texts[1]}"
    return "".join(texts)


class Ranks:
    """A recipe that runs in several processes, started as a cluster's launcher does it."""

    def __init__(self, recipe: str, *overrides: str, count: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "NODE_RANK": "0"}
        places = [{**meet, "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)} for rank in range(count)]
        self._outputs = [tempfile.TemporaryFile() for _ in places]  # noqa: SIM115 - closed in `wait`
        self.processes = [
            Process(recipe, *overrides, stdout=output, stderr=output, place=place if count > 1 else None)
            for output, place in zip(self._outputs, places, strict=True)
        ]

    def wait(self, timeout: float = 120) -> tuple[list[int], list[str]]:
        """Return the exit codes, and what each process printed; all are killed where one does not end in time."""
        codes, texts, end = [], [], time.monotonic() + timeout
        for process, output in zip(self.processes, self._outputs, strict=True):
            try:
                codes.append(process.wait(max(0.0, end - time.monotonic())))
            except TimeoutError:
                codes.append(-signal.SIGKILL)
            with output:
                output.seek(0)
                texts.append(output.read().decode())
        return codes, texts


def run_anew(recipe: str, *overrides: str) -> str:
    """Run a recipe in a process that shares nothing with another, and return what it printed."""
    done = subprocess.run(
        command(recipe, *overrides), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def records(out: Path, key: str) -> dict[int, Any]:
    """Return a metric of a run by step."""
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    found = (json.loads(line) for line in lines if line.endswith("\n"))
    return {record["step"]: record[key] for record in found if key in record}
