"""A short drill: harm after harm, chosen by a seed, and a run that ends as an undisturbed one (benchmarks/drill.py)."""

import errno
import os
import random
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tiny_run import At, Killed, TinyLoop, checkpointing, dying, fit

from nemo_reasoning.artifacts import fingerprint
from nemo_reasoning.errors import CheckpointError
from nemo_reasoning.training.checkpoint_store import CheckpointStore
from nemo_reasoning.training.checkpoints import list_checkpoints
from nemo_reasoning.training.loggers import JsonlLogger, read_metrics
from nemo_reasoning.training.process import Stopped, StopSignals

STEPS, ROUNDS, HARMS_A_ROUND = 8, 25, 4
Harm = Callable[[Path, random.Random], None]


def train(folder: Path, *callbacks: At, **options: object) -> None:
    """Train to the end, with metrics."""
    saving = checkpointing(folder, keep=2, **options)  # type: ignore[arg-type]
    fit(folder, callbacks, max_steps=STEPS, saving=saving, loggers=[JsonlLogger(folder / "metrics.jsonl")])


def result(folder: Path) -> tuple[list[float], list[tuple[int, float | None, str]]]:
    """Return the losses, and step, loss and content of the checkpoints."""
    losses = [record["loss"] for record in read_metrics(folder / "metrics.jsonl") if "loss" in record]
    return losses, [(found.step, found.loss, weights(found.path)) for found in list_checkpoints(folder)]


def weights(checkpoint: Path) -> str:
    """Return what identifies the numbers in a checkpoint; the bytes of a pickle depend on how they were made."""
    state = torch.load(checkpoint / "weights" / "state.pt")["model"]
    return fingerprint({name: value.tolist() for name, value in state.items()})


def killed(folder: Path, chance: random.Random) -> None:
    """Die in the place of some file operation."""
    with pytest.MonkeyPatch.context() as patch:
        dying(patch, chance.randrange(60))
        with suppress(Killed):  # there may be fewer left
            train(folder)


def stopped(folder: Path, chance: random.Random) -> None:
    """Stop in the way a user or a job system does."""
    signals, by = StopSignals(), chance.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    sending = At(chance.randrange(STEPS - 1), lambda: os.kill(os.getpid(), by), hook="on_step_start")
    with signals, signals.deferred(), suppress(Stopped):  # the step may be done already
        train(folder, sending, stop_signal=lambda: signals.received)


def full(folder: Path, chance: random.Random) -> None:
    """Find no room for a checkpoint."""
    save, step = TinyLoop.save, chance.choice([2, 4, 6])

    def broken(self: TinyLoop, path: Path) -> None:
        save(self, path)
        if self.step >= step:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TinyLoop, "save", broken)
        with pytest.raises(CheckpointError, match="no room to save step"):
            train(folder)


def damaged(folder: Path, chance: random.Random) -> None:
    """Change a byte of the last checkpoint of several."""
    if len(found := list_checkpoints(folder)) > 1:
        file = found[-1].path / "weights" / "state.pt"
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= 1
        file.write_bytes(content)


def cut(folder: Path, chance: random.Random) -> None:
    """Cut the record of the run."""
    record = CheckpointStore(folder).history.path
    if record.is_file():
        record.write_bytes(record.read_bytes()[: chance.randrange(record.stat().st_size + 1)])


def renamed(folder: Path, chance: random.Random) -> None:
    """Give files times in any order, and checkpoints names in any order, a copy among them."""
    for number, checkpoint in enumerate(list_checkpoints(folder)):
        place = checkpoint.path.with_name(f"{chance.randrange(10**6)}-{number}")
        checkpoint.path.rename(place)
        if chance.random() < 0.5:
            shutil.copytree(place, place.with_name(f"copy of {number}"))
    for path in folder.rglob("*"):
        os.utime(path, (chance.randrange(10**9),) * 2)


HARMS: tuple[Harm, ...] = (killed, killed, stopped, full, damaged, cut, renamed)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_whatever_is_done_to_a_run_it_ends_as_an_undisturbed_one(whole: Path, tmp_path: Path, seed: int) -> None:
    chance, folder = random.Random(seed), tmp_path / "run"
    for number in range(HARMS_A_ROUND):
        if folder.is_dir() and max((found.step for found in list_checkpoints(folder)), default=0) == STEPS:
            break  # nothing is left to be interrupted
        chance.choice(HARMS)(folder, chance)
        if folder.is_dir():
            folder = folder.rename(tmp_path / f"moved{number}")
    train(folder)
    assert result(folder) == result(whole)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder
