"""Writes the checkpoints of a run, and puts its folder in order when the run goes on."""

import json
import shutil
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any, Protocol

from nemo_reasoning.artifacts import no_room, read_steps, write_text
from nemo_reasoning.errors import CheckpointError
from nemo_reasoning.training.checkpoints import (
    CHECKPOINTS,
    SEAL,
    UNFINISHED,
    Checkpoint,
    History,
    damage,
    list_checkpoints,
    origin_differs,
    read_losses,
    seal,
    sealed_step,
)

_LAST = "-last"  # of the name of the last one, for people


class Saver(Protocol):
    """What saving needs of `callbacks.base.Loop`, which says more about each."""

    step: int
    first_rank: bool

    def save(self, path: Path) -> None:
        """Write a checkpoint's weights and context."""

    def any_rank(self, told: bool) -> bool:
        """Whether any process says so."""

    def barrier(self) -> None:
        """Wait for all processes."""


class CheckpointStore:
    """Writes the checkpoints of a run; used by the process that trains it."""

    def __init__(self, folder: Path, *, made_from: Mapping[str, Any] | None = None) -> None:
        """Take the run's folder, and what its checkpoints are made from, as `Run.made_from` tells it."""
        self.folder, self.history, self._made_from = folder, History(folder), made_from or {}
        self._identity = _identity(folder)

    def save(self, loop: Saver) -> None:
        """Write a checkpoint of the step that was done; all ranks take part.

        It is declared finished, by `checkpoint.json`, when all of its bytes are on disk. Until then a file beside
        it says that it is not, as NeMo does it.

        Raises:
            CheckpointError: There is no room for it, or the run's folder was moved or removed meanwhile.
        """
        self.require_folder(loop)
        path = self.folder / CHECKPOINTS / f"step={loop.step}{_LAST}"
        if loop.any_rank(loop.first_rank and self._too_full()):
            raise self._no_room(loop.step, "the disk would be full")
        if loop.first_rank:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove(path)
            _marker(path).touch()
        loop.barrier()
        try:
            loop.save(path)
            if loop.first_rank:
                seal(path, step=loop.step, made_from=self._made_from)
        except BaseException as error:  # torch's CheckpointException is no Exception
            if (full := no_room(error)) is None:
                raise
            if loop.first_rank:
                _remove(path)
            raise self._no_room(loop.step, full) from error
        if loop.first_rank:
            self.history.append("save", step=loop.step)
            _marker(path).unlink()

    def require_folder(self, loop: Saver) -> None:
        """Refuse to begin a folder anew that was moved or removed meanwhile; all ranks take part.

        Raises:
            CheckpointError: It is not there any more, or another one is in its place.
        """
        if loop.any_rank(loop.first_rank and self._identity not in (None, _identity(self.folder))):
            raise CheckpointError(
                f"{self.folder} was moved or removed while the run was writing to it, so step {loop.step} cannot be "
                "saved; put it back as it was, or give its new place as output_dir, and run the same command: it goes "
                "on after the last save there"
            )

    def retain(self, keep: int) -> None:
        """Remove every checkpoint but the last and, of the others, the `keep` best; only the last is called so.

        So there is one to go back to where the last, which in most runs is the best too, is damaged.
        """
        found = list_checkpoints(self.folder)
        others = sorted(found[:-1], key=lambda one: (inf if one.loss is None else one.loss, -one.step))
        for checkpoint in others[keep:]:
            _remove(checkpoint.path)
        for checkpoint in others[:keep]:
            if checkpoint.path.name.endswith(_LAST):
                measured = "" if checkpoint.loss is None else f"-val_loss={checkpoint.loss:.4f}"
                _rename(checkpoint.path, f"step={checkpoint.step}{measured}")
        for checkpoint in found[-1:]:
            if not checkpoint.path.name.endswith(_LAST):
                _rename(checkpoint.path, f"step={checkpoint.step}{_LAST}")

    def recover(self) -> tuple[Checkpoint | None, list[str]]:
        """Put the folder in order and return what to go on from, the checkpoint with most steps that is intact.

        What a kill cut off is removed. A damaged checkpoint is moved to `set_aside`.

        Returns:
            The checkpoint, None if nothing was ever saved; and what was found and done, a line each.

        Raises:
            CheckpointError: Something was saved, and none of it is left intact.
        """
        if (place := self.folder / CHECKPOINTS).exists() and not place.is_dir():
            raise CheckpointError(f"{place} is no folder; remove it, or choose another name=")
        self._adopt()
        had = any(event["event"] == "save" for event in self.history.events())
        notes = [*self._remove_torn(), *self._clean_history()]
        for checkpoint in list_checkpoints(self.folder, doubles=True):
            if harm := damage(checkpoint):
                place = self._set_aside(checkpoint.path)
                notes.append(f"the checkpoint of step {checkpoint.step} is damaged ({harm}); it was moved to {place}")
                had = True
            elif differences := origin_differs(checkpoint, self._made_from):
                place = self._set_aside(checkpoint.path)
                notes.append(
                    f"the checkpoint of step {checkpoint.step} is of another run ({'; '.join(differences)}); it was "
                    f"moved to {place}"
                )
        found = list_checkpoints(self.folder)
        for double in list_checkpoints(self.folder, doubles=True):
            if double not in found:
                _remove(double.path)
        if had and not found:
            raise CheckpointError(
                "; ".join([*notes, f"{self.folder} has no intact checkpoint left, though it had some"])
                + ". Restore one from a copy, or start over from the base model with restart=true"
            )
        return (found[-1] if found else None), notes

    def intact(self) -> Checkpoint | None:
        """Return what `recover` returns to the first process, for the others: the folder stays as it is."""
        latest_first = sorted(list_checkpoints(self.folder, doubles=True), key=lambda found: -found.step)
        sound = (one for one in latest_first if not damage(one) and not origin_differs(one, self._made_from))
        return next(sound, None)

    def restart(self) -> None:
        """Set aside all checkpoints and forget what happened, so that the run begins anew."""
        if (self.folder / CHECKPOINTS).is_dir():
            self._set_aside(self.folder / CHECKPOINTS)
        self.history.path.unlink(missing_ok=True)

    def _adopt(self) -> None:
        """Take over a folder of version 0.1: write down what its metrics and checkpoints say."""
        if self.history.path.is_file():
            return
        found = list_checkpoints(self.folder, doubles=True)
        for checkpoint in found:
            if not (checkpoint.path / SEAL).is_file():
                seal(checkpoint.path, step=checkpoint.step)
        validations = [
            {"event": "validation", "step": step, "loss": loss} for step, loss in read_losses(self.folder).items()
        ]
        saves = [{"event": "save", "step": checkpoint.step} for checkpoint in found]
        if validations or saves:
            write_text(self.history.path, "".join(json.dumps(event) + "\n" for event in [*validations, *saves]))

    def _remove_torn(self) -> list[str]:
        """Remove what a kill left of a save or a removal, and set aside what else is no checkpoint."""
        notes = []
        for path in sorted((self.folder / CHECKPOINTS).glob("*")):
            if path.is_dir() and sealed_step(path) is None:
                notes.append(f"{path.name} is no finished checkpoint: it was cut off")
                if _marker(path).exists():
                    _remove(path)
                else:
                    self._set_aside(path)
        for path in (self.folder / CHECKPOINTS).glob(f"*{UNFINISHED}"):
            path.unlink()
        return notes

    def _clean_history(self) -> list[str]:
        """Leave out what is no event, and put back validations that only the metrics have."""
        unreadable = read_steps(self.history.path)[1]
        if unreadable:
            write_text(self.history.path, "".join(json.dumps(event) + "\n" for event in self.history.events()))
        known = self.history.losses()
        for checkpoint in list_checkpoints(self.folder):
            if checkpoint.loss is not None and checkpoint.step not in known:
                self.history.append("validation", step=checkpoint.step, loss=checkpoint.loss)
        return [f"{unreadable} lines of {self.history.path.name} are no events; they were left out"] * bool(unreadable)

    def _set_aside(self, path: Path) -> Path:
        place = self.folder / "set_aside" / path.name
        number = 1
        while place.exists():
            number += 1
            place = place.with_name(f"{path.name}.{number}")
        place.parent.mkdir(exist_ok=True)
        shutil.move(path, place)  # `checkpoints` may lie on another disk
        return place

    def _too_full(self) -> bool:
        """Whether a checkpoint as large as the last one does not fit."""
        return shutil.disk_usage(self.folder).free < self._expected_bytes()

    def _expected_bytes(self) -> int:
        last = list_checkpoints(self.folder)[-1:]
        return sum(file.stat().st_size for one in last for file in one.path.rglob("*") if file.is_file())

    def _no_room(self, step: int, why: str) -> CheckpointError:
        last, needed = list_checkpoints(self.folder)[-1:], self._expected_bytes()
        wanted = f"it takes {_megabytes(needed)}, and" if needed else "only"
        free = _megabytes(shutil.disk_usage(self.folder).free)
        again = f"goes on after step {last[0].step}" if last else "begins anew"
        return CheckpointError(
            f"no room to save step {step}, {why}: {wanted} {free} are free in {self.folder}. "
            f"Make room and run the same command: it {again}"
        )


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from another of its name; None where there is none."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _marker(path: Path) -> Path:
    return path.with_name(path.name + UNFINISHED)


def _remove(path: Path) -> None:
    """Remove a checkpoint; it is none any more from the first operation on."""
    if path.is_symlink():  # to another disk, where its owner may want it still
        path.unlink()
    elif path.is_dir():
        _marker(path).touch()
        (path / SEAL).unlink(missing_ok=True)
        shutil.rmtree(path)
    _marker(path).unlink(missing_ok=True)


def _rename(path: Path, name: str) -> None:
    if not path.with_name(name).exists():
        path.rename(path.with_name(name))
