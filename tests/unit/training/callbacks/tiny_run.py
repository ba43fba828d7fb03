"""A training in plain torch that drives callbacks as an engine does, on a language model of a few hundred weights."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_reasoning.models.flops import BatchCounts
from nemo_reasoning.training.callbacks.base import Callback, Logger, Logits, Loop, StepRecord, Validation, in_order
from nemo_reasoning.training.callbacks.checkpointing import Checkpointing
from nemo_reasoning.training.callbacks.metrics import MetricsRecorder
from nemo_reasoning.training.checkpoint_store import CheckpointStore

VOCAB, LENGTH, BATCH, EVERY = 11, 6, 4, 2


class TinyModel(torch.nn.Module):
    """Predicts the next token from this one, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(VOCAB, 8)
        self.dropout = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(8, VOCAB)
        self.losses: list[float] = []

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.dropout(self.embed(ids)))
        return logits

    def loss(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


class TinyLoop:
    """An engine: one process, one device, a validation every second step and after the last."""

    def __init__(self, callbacks: Sequence[Callback], *, max_steps: int, first_rank: bool = True) -> None:
        torch.manual_seed(0)
        self.model = TinyModel()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.ids = torch.randint(VOCAB, (64 * BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
        self.callbacks, self.step, self.max_steps = list(in_order(callbacks)), 0, max_steps
        self.world_size, self.first_rank, self.data_rank = 1, first_rank, 0
        self.device, self.can_generate, self.stopping = torch.device("cpu"), True, False
        self.requested, self.validated = False, set[int]()
        self.skip: Callable[[], bool] | None = None

    def call(self, hook: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, *arguments)

    def run(self) -> None:
        for hook in ("on_setup", "on_model", "on_start"):
            self.call(hook)
        try:
            if self.step and self.step % EVERY == 0 and self.step not in self.validated:
                self.validate()  # a signal prevented it
            while self.step < self.max_steps and not self.stopping:
                self.advance()
            self.call("on_end")
        except BaseException as error:
            self.call("on_error", error)
            raise
        finally:
            self.call("on_close")

    def advance(self) -> None:
        self.call("on_step_start")
        torch.manual_seed(self.step)
        loss = self.model.train().loss(self.batch(self.step))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if torch.isfinite(loss) or self.skip is None or not self.skip():
            self.optimizer.step()
        self.step += 1
        self.model.losses.append(loss.item())
        self.call("on_step_end", StepRecord(self.step, {"loss": loss.item(), "lr": 0.05}))
        if self.requested or self.step % EVERY == 0 or self.step >= self.max_steps or self.stopping:
            self.validate()

    def validate(self) -> None:
        self.requested = False
        self.call("on_validation_start")
        with self.logits():
            value = float(self.model.loss(self.batch(60)))
        self.call("on_validation_end", Validation(self.step, value))

    def batch(self, step: int) -> torch.Tensor:
        return self.ids[step * BATCH : (step + 1) * BATCH]

    @contextmanager
    def logits(self) -> Iterator[tuple[Logits, int]]:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield self.model.eval(), 1
        self.model.train()

    def announce_save(self) -> None:
        self.call("on_save")

    def save(self, path: Path) -> None:
        for part in ("weights", "context"):
            (path / part).mkdir(parents=True)
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        torch.save(state, path / "weights" / "state.pt")

    def load(self, path: Path) -> None:
        state = torch.load(path / "weights" / "state.pt")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def any_rank(self, told: bool) -> bool:
        return told

    def agree(self, number: int) -> int:
        return number

    def guard_updates(self, skip: Callable[[], bool]) -> None:
        self.skip = skip

    def request_validation(self) -> None:
        self.requested = True

    def barrier(self) -> None:
        return None

    def set_schedule(self, *, max_steps: int, warmup_steps: int) -> None:
        return None


def batch_counts(step: int) -> BatchCounts:
    """Return made-up sizes: batch n has n + 1 samples."""
    samples = step + 1
    return BatchCounts(samples=samples, tokens=10 * samples, nonpad_tokens=8 * samples, supervised_tokens=3 * samples)


class At(Callback):
    """Does something in a hook at one step, last of all."""

    position = 99

    def __init__(self, step: int, action: Callable[[], object], *, hook: str = "on_step_end") -> None:
        def act(loop: Loop, *_: object) -> None:
            if loop.step == step:
                action()

        setattr(self, hook, act)


def checkpointing(
    folder: Path,
    *,
    keep: int = 1,
    show: Callable[[str], None] = print,
    stop_signal: Callable[[], int | None] = lambda: None,
    deadline: float | None = None,
) -> Checkpointing:
    """Return the callback that saves."""
    return Checkpointing(CheckpointStore(folder), keep=keep, show=show, stop_signal=stop_signal, deadline=deadline)


def fit(
    folder: Path,
    callbacks: Sequence[Callback],
    *,
    max_steps: int,
    loggers: Sequence[Logger] = (),
    saving: Checkpointing | None = None,
) -> TinyModel:
    """Train, going on from the last checkpoint in a folder; the model holds the losses of this start."""
    checkpoint, _ = CheckpointStore(folder).recover()
    saving = saving or checkpointing(folder)
    loop = TinyLoop([MetricsRecorder(loggers), saving, *callbacks], max_steps=max_steps)
    if checkpoint is not None:
        loop.load(checkpoint.path)
        loop.validated = set(CheckpointStore(folder).history.losses())
    loop.run()
    return loop.model


OPERATIONS = ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "open")


class Killed(BaseException):
    """Stands for SIGKILL: nothing that handles errors may see it."""


def dying(monkeypatch: pytest.MonkeyPatch, limit: int | None) -> list[str]:
    """Count the file operations on checkpoints and history, and die in the place of number `limit`."""
    seen: list[str] = []
    dead: list[bool] = []

    def wrap(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def operation(*arguments: object, **options: object) -> object:
            told = " ".join(str(argument) for argument in arguments)
            if dead:
                raise Killed
            if name == "fsync" or "checkpoints" in told or "history" in told:
                if len(seen) == limit:
                    dead.append(True)
                    raise Killed
                seen.append(name)
            return original(*arguments, **options)

        return operation

    for name in OPERATIONS:
        monkeypatch.setattr(os, name, wrap(name, getattr(os, name)))
    return seen
