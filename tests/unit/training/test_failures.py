"""Errors of libraries are told with their true cause, or not at all; steps that are no number may be left out."""

import errno
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from composing import sft_settings
from short_runs import train_here
from torch.distributed.checkpoint.api import CheckpointException

from nemo_reasoning.artifacts import no_room, storage_problem
from nemo_reasoning.errors import CheckpointError, TrainingError
from nemo_reasoning.training.callbacks.losses import NonFiniteSteps
from nemo_reasoning.training.failures import NonFiniteLoss, translated_errors
from nemo_reasoning.training.heartbeat import Heartbeat
from nemo_reasoning.training.loggers import read_metrics
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import TrainingInputs

Network, Store, Backend = (getattr(torch.distributed, f"Dist{kind}Error") for kind in ("Network", "Store", "Backend"))
LISTEN = "The server socket has failed to listen on any local network address. port: 29511, useIpv6: false, code: -98, "
GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/"
UNKNOWN = "not translated"


class Torn(CheckpointException):
    """torch's error of a checkpoint, which is no `Exception`."""

    def __init__(self, failures: dict[int, Any], said: str) -> None:
        super().__init__(said, failures)
        self.said = said

    def __str__(self) -> str:
        return self.said


Torn.__name__ = "CheckpointException"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a started run."""
    return Run.start(sft_settings("hardware=cpu", "trainer.micro_batch_size=2", f"output_dir={tmp_path / 'run'}"))


def told(run: Run, error: BaseException, *, heartbeat: Heartbeat | None = None) -> str:
    """Return what a user is told of an error."""
    try:
        with translated_errors(run, batch=lambda: "step 7, rows 3, 4", heartbeat=heartbeat):
            raise error
    except TrainingError as translated:
        return str(translated)
    except BaseException:
        return UNKNOWN


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Network(f"{LISTEN}name: EADDRINUSE, message: address already in use"), "port 29511 is used.*MASTER_PORT"),
        (RuntimeError("NCCL error: bind: Address already in use"), "is used by another program"),
        (Store("Timed out after 601 seconds waiting for clients. 1/2 clients joined."), "do not reach each other"),
        (
            Network("The client socket has timed out after 60000ms while trying to connect to (n1, 29500)"),
            "MASTER_ADDR",
        ),
        (RuntimeError(f"{GLOO}pair.cc:547] Connection closed by peer [127.0.0.1]:4242"), "another process.*ended"),
        (RuntimeError(f"{GLOO}pair.cc:547] Read error: Connection reset by peer"), "another process.*ended"),
        (
            RuntimeError(f"{GLOO}unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation"),
            "does not answer",
        ),
        (Backend("NCCL error in: x.cpp:94, ncclRemoteError: remote process exited"), "another process.*ended"),
        (Backend("NCCL error in: x.cpp:94, ncclInvalidUsage: Duplicate GPU detected"), "NCCL failed.*Duplicate GPU"),
        (
            Backend("NCCL error: ncclUnhandledCudaError, Cuda failure 2 'out of memory'"),
            "out of memory.*micro_batch_size=1",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory.*micro_batch_size=1"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
        (NonFiniteLoss("the loss is nan"), "step 7, rows 3, 4.*optim.lr.*trainer.max_skipped_steps"),
        (
            RuntimeError("Unexpected result nan (message='found NaN in local grad norm for bucket #0')"),
            "is no number in",
        ),
        (RuntimeError("Function 'MulBackward0' returned nan values in its 0th output."), "is no number in"),
        (RuntimeError("DataLoader worker (pid(s) 7) is killed by signal: Killed. "), "reads data was killed"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full; free: .* MB in .*Make room"),
        (Torn({}, "OSError: [Errno 28] No space left on device"), "disk is full"),
        (Torn({}, "PermissionError: somewhere"), UNKNOWN),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/q/x"), "quota"),
        (OSError(errno.EFBIG, "File too large", "/q/x"), "ulimit -f"),
        (PermissionError(errno.EACCES, "Permission denied", "/ro/metrics.jsonl"), "/ro/metrics.jsonl.*give this user"),
        (OSError(errno.EROFS, "Read-only file system", "/ro/x"), "/ro/x.*choose another place"),
        (OSError(errno.EMFILE, "Too many open files", "/data/rows"), "ulimit -n"),
        # of these the cause is not known, or lies in the program: they leave as they are
        (ZeroDivisionError("division by zero"), UNKNOWN),
        (OverflowError("int too large"), UNKNOWN),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/run/data/train/tokens.npy"), UNKNOWN),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), UNKNOWN),
        (RuntimeError("Caught KeyError in DataLoader worker process 0."), UNKNOWN),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Segmentation fault."), UNKNOWN),
        (RuntimeError("shape mismatch in ProcessGroup wrapper"), UNKNOWN),
        (ValueError("expected NaN loss handling to be one of skip, raise"), UNKNOWN),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_cause_that_is_named_is_the_true_one(run: Run, error: BaseException, words: str) -> None:
    assert re.search(words, told(run, error)), told(run, error)


def test_a_full_disk_is_found_behind_what_it_led_to(tmp_path: Path) -> None:
    error = RuntimeError("unexpected pos 576 vs 470")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert str(tmp_path) in str(storage_problem(error, places=[tmp_path, tmp_path / "not there"]))
    assert no_room(RuntimeError("worker: [Errno 28] No space left on device"))
    error.__context__ = PermissionError(errno.EACCES, "handled before", "/x")
    assert storage_problem(error, places=[tmp_path]) is None
    torn = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 7488 vs 7376")
    told = str(storage_problem(torn, places=[tmp_path / "to" / "come", Path("relative")]))
    assert re.search(rf"written whole.* MB in {tmp_path}, .* MB in ", told)  # where the room is wanted, not elsewhere


def broken_at(steps: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the loss of some steps, counted from 1, no number while a model trains."""
    from nemo_reasoning.training.callbacks import losses

    supervised, now = losses.supervised_loss, [0]

    class Counter(NonFiniteSteps):
        def on_step_start(self, loop: object) -> None:
            super().on_step_start(loop)  # type: ignore[arg-type]
            now[0] = loop.step + 1  # type: ignore[attr-defined]

    def loss(hidden: torch.Tensor, *arguments: object, **options: object) -> torch.Tensor:
        value: torch.Tensor = supervised(hidden, *arguments, **options)  # type: ignore[arg-type]
        return value * float("nan") if now[0] in steps and hidden.requires_grad else value

    monkeypatch.setattr(losses, "supervised_loss", loss)
    monkeypatch.setattr(losses, "NonFiniteSteps", Counter)


def test_steps_that_are_no_number_are_left_out_counted_and_bounded(
    inputs: TrainingInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nemo_cpu: None
) -> None:
    broken_at({2, 3}, monkeypatch)
    limit = "trainer.max_skipped_steps=2"
    run = train_here(inputs, tmp_path / "run", limit, "trainer.max_steps=2")
    run = train_here(inputs, run, limit, "trainer.max_steps=4")
    records = [record for record in read_metrics(run / "metrics.jsonl") if "lr" in record]
    assert [("loss" in record, record["skipped_steps"]) for record in records] == [
        *((True, 0), (False, 1), (False, 2), (True, 2)),
    ]
    assert all(record.get("loss", 1.0) is not None for record in records)
    events = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "skip"] == [2, 3]
    with pytest.raises(TrainingError, match="step 3, rows"):
        train_here(inputs, tmp_path / "fewer", "trainer.max_skipped_steps=1")
    with pytest.raises(TrainingError, match="step 2, rows"):
        train_here(inputs, tmp_path / "none")
    with pytest.raises(CheckpointError, match="no finished checkpoint"):
        Run.open(tmp_path / "none").selected()


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (RuntimeError(f"{GLOO}pair.cc:547] Connection closed by peer [127.0.0.1]:4242"), True),
        (Backend("NCCL error in: ... remote process exited or there was a network error"), True),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed"), False),
    ],
)
def test_who_is_gone_is_named(run: Run, error: BaseException, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat = Heartbeat(silence=1)
    monkeypatch.setattr(heartbeat, "wait", lambda seconds: "rank 1 on n2 ended")
    said = told(run, error, heartbeat=heartbeat)
    assert said.startswith("rank 1 on n2 ended; nothing is saved yet. Look at its machine") == named, said
