"""The checkpoints of a run and what was measured of them: all that best and last are chosen from.

`history.jsonl` in the run's folder has a line for every validation and every save. Each checkpoint carries a
`checkpoint.json` that says its step and describes its files; it is written last, so a checkpoint without one was
cut off. Names of folders and times of files decide nothing, so a run may be moved, copied or restored from a backup.
"""

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeGuard

from nemo_reasoning.artifacts import file_sha256, fingerprint, read_steps, write_json, write_text

CHECKPOINTS, HISTORY, METRICS_FILE, SEAL = "checkpoints", "history.jsonl", "metrics.jsonl", "checkpoint.json"
LENGTH = "length"  # of the history's events, one that tells how long the run becomes
_DESCRIBED = {"bytes", "sha256"}
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
        """Return the events, also those of kinds that a later version adds; what is none is left out."""
        return [record for record in read_steps(self.path)[0] if isinstance(record.get("event"), str)]

    def append(self, event: str, *, step: int, **values: Any) -> None:
        """Add an event, behind a line that was cut off if there is one; it is on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")
            file.write(json.dumps({"event": event, "step": step, **values}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @property
    def lengths(self) -> list[dict[str, Any]]:
        """Events of `callbacks.time_budget`: how many `steps` the run was given, and whether that is `fixed`."""
        return [event for event in self.events() if event["event"] == LENGTH and type(event.get("steps")) is int]

    def drop_after(self, step: int) -> None:
        """Forget what happened after a step, because it is about to happen again."""
        events = self.events()
        kept = [event for event in events if event["step"] <= step]
        if self.path.is_file():
            write_text(self.path, "".join(json.dumps(event) + "\n" for event in kept))

    def losses(self) -> dict[int, float]:
        """Return the validation loss of every step that was validated and gave a number."""
        found = {event["step"]: event.get("loss") for event in self.events() if event["event"] == "validation"}
        return {step: loss for step, loss in found.items() if _is_number(loss)}


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
    """Return the measured validation losses by step, from the history and what only metrics.jsonl has of them.

    Runs of version 0.1 have no history, and a crash of the machine may have cut one off.
    """
    records = read_steps(folder / METRICS_FILE, having='"val_loss"')[0]
    logged = {record["step"]: record["val_loss"] for record in records if _is_number(record.get("val_loss"))}
    return logged | History(folder).losses()


def _is_number(loss: Any) -> TypeGuard[float]:
    return isinstance(loss, int | float) and isfinite(loss)


def sealed_step(path: Path) -> int | None:
    """Return the step of a finished checkpoint; None for anything else."""
    if not path.is_dir():
        return None
    if (path / SEAL).is_file():
        step = _sealed(path).get("step")
        return step if type(step) is int else None
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
        return int(torch.load(state, map_location="cpu", weights_only=True)["global_step"])
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError):
        return None


def seal(path: Path, *, step: int, made_from: Mapping[str, Any] | None = None) -> None:
    """Declare a checkpoint finished, when its files are on disk.

    Args:
        path: Folder of the checkpoint; gets a file with its step and with size and SHA-256 of its files.
        step: Optimizer steps done.
        made_from: Content and settings that the weights depend on, to know it among checkpoints of other runs.
    """
    write_json(path / SEAL, {"step": step, "files": dict(_describe(path)), "made_from": dict(made_from or {})})
    _sync(path / SEAL)
    _sync(path)


def damage(checkpoint: Checkpoint) -> str | None:
    """Return what is wrong with a checkpoint's files; None if they are as they were saved.

    Checkpoints of version 0.1 recorded nothing to compare with, so nothing is found in them.
    """
    if not (checkpoint.path / SEAL).is_file():
        return None
    expected = _sealed(checkpoint.path).get("files")
    if not isinstance(expected, dict) or not all(set(described) >= _DESCRIBED for described in expected.values()):
        return f"{SEAL} does not describe its files"
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


def origin_differs(checkpoint: Checkpoint, made_from: Mapping[str, Any]) -> list[str]:
    """Return, in words, where a checkpoint was made from something else; what either does not say is not compared."""
    was: dict[str, Any] = _sealed(checkpoint.path).get("made_from") or {}
    return [
        f"{name} was {was[name]}, is {now}"
        for name, now in made_from.items()
        if None not in (was.get(name), now) and was[name] != now
    ]


def _sealed(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself; nothing where it does not, or not readably."""
    try:
        found = json.loads((path / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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
    if files := _sealed(checkpoint.path).get("files"):
        return fingerprint({name: files[name]["sha256"] for name in files if name.endswith(".distcp")})
    weights = sorted((checkpoint.path / "weights").glob("*.distcp"))
    return fingerprint({f"weights/{file.name}": file_sha256(file) for file in weights})
