"""The checkpoints of a run and what was measured of them: all that best and last are chosen from.

`history.jsonl` in the run's folder has a line for every validation and every save. Each checkpoint carries a
`checkpoint.json` that says its step and describes its files; it is written last, so a checkpoint without one was
cut off. Names of folders and times of files decide nothing, so a run may be moved, copied or restored from a backup.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import file_sha256, fingerprint, write_json, write_text

CHECKPOINTS, HISTORY, SEAL = "checkpoints", "history.jsonl", "checkpoint.json"
_METRICS = "metrics.jsonl"  # where runs of version 0.1 have their validations
UNFINISHED = "-unfinished"  # NeMo and this package put a file of this name beside a checkpoint that is being written


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint.

    Attributes:
        path: Its folder, with `weights` and `context`.
        step: Optimizer steps done.
        loss: Validation loss measured at that very step; None if there was no validation.
    """

    path: Path
    step: int
    loss: float | None


class History:
    """What happened in a run, a JSON object a line: validations and saves, in the order they happened."""

    def __init__(self, folder: Path) -> None:
        """Name the run's folder; the file is read when asked for and made with the first event."""
        self.path = folder / HISTORY

    def events(self) -> list[dict[str, Any]]:
        """Return the events; a last line that was cut off by a kill is left out."""
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def append(self, event: str, *, step: int, **values: Any) -> None:
        """Add an event; it is on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, "step": step, **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def drop_after(self, step: int) -> None:
        """Forget what happened after a step, because it is about to happen again."""
        events = self.events()
        kept = [event for event in events if event["step"] <= step]
        if self.path.is_file():
            write_text(self.path, "".join(json.dumps(event) + "\n" for event in kept))

    def losses(self) -> dict[int, float]:
        """Return the validation loss of every step that was validated and gave a number."""
        found = {event["step"]: event["loss"] for event in self.events() if event["event"] == "validation"}
        return {step: loss for step, loss in found.items() if loss is not None and isfinite(loss)}


def list_checkpoints(folder: Path, *, doubles: bool = False) -> list[Checkpoint]:
    """Return the finished checkpoints of a run's folder, by step; whether their files are intact is not looked at.

    Args:
        folder: Of the run.
        doubles: Whether to return every checkpoint of a step; otherwise the first by name stands for all.
    """
    losses = read_losses(folder)
    found: list[Checkpoint] = []
    for path in sorted((folder / CHECKPOINTS).glob("*")):
        step = sealed_step(path)
        if step is not None and (doubles or step not in [checkpoint.step for checkpoint in found]):
            found.append(Checkpoint(path, step, losses.get(step)))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def read_losses(folder: Path) -> dict[int, float]:
    """Return the measured validation losses by step; runs of version 0.1 have them in metrics.jsonl alone."""
    history = History(folder)
    if history.path.is_file():
        return history.losses()
    path = folder / _METRICS
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return {record["step"]: record["val_loss"] for record in records if record.get("val_loss") is not None}


def sealed_step(path: Path) -> int | None:
    """Return the step of a finished checkpoint; None for anything else."""
    if not path.is_dir():
        return None
    if (path / SEAL).is_file():
        try:
            return int(json.loads((path / SEAL).read_text(encoding="utf-8"))["step"])
        except (ValueError, KeyError, TypeError):
            return None
    return _step_without_seal(path)


def _step_without_seal(path: Path) -> int | None:
    """Return the step of a checkpoint of version 0.1, from the checkpoint's own state."""
    state = path / "weights" / "common.pt"
    if path.with_name(path.name + UNFINISHED).exists() or not state.is_file() or not (path / "context").is_dir():
        return None
    if (path.parents[1] / HISTORY).is_file():  # of this version, so it was cut off before it was sealed
        return None
    import pickle

    import torch

    try:
        return int(torch.load(state, map_location="cpu", weights_only=False)["global_step"])
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError):
        return None


def seal(path: Path, *, step: int) -> None:
    """Declare a checkpoint finished: record its step and the size and SHA-256 of its files, which are on disk then."""
    write_json(path / SEAL, {"step": step, "files": dict(_describe(path))})
    _sync(path / SEAL)
    _sync(path)


def damage(checkpoint: Checkpoint) -> str | None:
    """Return what is wrong with a checkpoint's files; None if they are as they were saved.

    Checkpoints of version 0.1 recorded nothing to compare with, so nothing is found in them.
    """
    path = checkpoint.path / SEAL
    if not path.is_file():
        return None
    expected = json.loads(path.read_text(encoding="utf-8"))["files"]
    for name, described in expected.items():
        file = checkpoint.path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != described["bytes"]:
            return f"{name} has {file.stat().st_size} bytes, {described['bytes']} were saved"
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(file_sha256, [checkpoint.path / name for name in expected])
        for (name, described), found in zip(expected.items(), hashes, strict=True):
            if found != described["sha256"]:
                return f"the content of {name} is not what was saved"
    return None


def _describe(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != SEAL)

    def settle(file: Path) -> str:
        _sync(file)
        return file_sha256(file)

    with ThreadPoolExecutor() as pool:
        for file, sha256 in zip(files, pool.map(settle, files), strict=True):
            yield file.relative_to(path).as_posix(), {"bytes": file.stat().st_size, "sha256": sha256}


def _sync(path: Path) -> None:
    """Have the operating system write a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def content_id(checkpoint: Checkpoint) -> str:
    """Return what identifies the weights of a checkpoint, wherever it lies: a hash of its weight files' hashes."""
    path = checkpoint.path / SEAL
    if path.is_file():
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return fingerprint({name: files[name]["sha256"] for name in files if name.endswith(".distcp")})
    weights = sorted((checkpoint.path / "weights").glob("*.distcp"))
    return fingerprint({f"weights/{file.name}": file_sha256(file) for file in weights})
