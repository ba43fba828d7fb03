"""What the user sees."""

import contextlib
import io
import os
import pty
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console
from tiny_run import At, TinyLoop, fit

from nemo_reasoning.training.callbacks.base import UNKNOWN_LENGTH, StepRecord
from nemo_reasoning.training.callbacks.progress import ProgressDisplay, duration, format_metrics


def test_metrics_come_in_a_fixed_order_and_absent_ones_are_left_out() -> None:
    metrics = {
        "eta_seconds": 65.0,
        "val_loss": 1.5,
        "loss": 1.25,
        "lr": 2e-4,
        "tokens_per_second": 12345.6,
        "rss_bytes": 3 * 1024**3,
        "grad_norm": 1.0,
    }

    assert format_metrics(metrics) == ("loss 1.2500  val_loss 1.5000  lr 2.00e-04  12,346 tok/s  3.0 GiB  1m05s left")
    assert "1.0 GiB VRAM" in format_metrics(metrics | {"vram_peak_bytes": 1024**3})
    assert "3.0 GiB" not in format_metrics(metrics | {"vram_peak_bytes": 1024**3})
    assert format_metrics({}) == ""


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "5s"), (59.7, "1m00s"), (3599, "59m59s"), (7620, "2h07m")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_without_a_terminal_there_is_a_line_every_n_steps(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(file=stream, markup=False, emoji=False)
    display = ProgressDisplay(console, show=console.print, every_n_steps=4)
    fit(tmp_path, [display, At(3, lambda: console.print("[a note] :smile:"))], max_steps=5)
    lines = stream.getvalue().splitlines()

    assert [line.split("  ")[0] for line in lines] == [
        "step 1/5",
        "step 2",
        "[a note] :smile:",
        "step 4/5",
        "step 4",
        "step 5/5",
        "step 5",
    ]
    assert "loss" in lines[0]
    assert "val_loss" in lines[1]


def test_a_resumed_run_says_where_it_starts(tmp_path: Path) -> None:
    fit(tmp_path, [], max_steps=2)
    stream = io.StringIO()
    console = Console(file=stream)
    fit(tmp_path, [ProgressDisplay(console, show=console.print, every_n_steps=10)], max_steps=3)

    assert stream.getvalue().startswith("resuming after step 2 of 3\n")


def test_steps_that_are_not_estimated_yet_are_not_told(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(file=stream)
    loop = TinyLoop([], max_steps=UNKNOWN_LENGTH)
    display = ProgressDisplay(console, show=console.print, every_n_steps=1, fitted=True)
    for steps in (UNKNOWN_LENGTH, 70):
        loop.step, loop.max_steps = 34, steps
        display.on_start(loop)
        display.on_step_end(loop, StepRecord(35, {"loss": 1.0, "eta_seconds": 9.0}))
    assert stream.getvalue().splitlines() == [
        *("resuming after step 34", "step 35  loss 1.0000"),
        *("resuming after step 34 of 70", "step 35/70  loss 1.0000  9s left"),
    ]


def crash() -> None:
    """Fail."""
    raise RuntimeError("crash")


def _read_all(terminal: int) -> str:
    """Return what is written to a terminal until it is closed, which Linux reports as an error."""
    pieces = []
    with os.fdopen(terminal, "rb", buffering=0) as stream, contextlib.suppress(OSError):
        while piece := stream.read(4096):
            pieces.append(piece)
    return b"".join(pieces).decode()


@pytest.mark.parametrize("fails", [False, True])
def test_a_terminal_has_a_live_bar_that_is_taken_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    reader, writer = pty.openpty()
    with ThreadPoolExecutor() as pool, os.fdopen(writer, "w") as stream:
        reading = pool.submit(_read_all, reader)
        console = Console(file=stream)
        display = ProgressDisplay(console, show=console.print, every_n_steps=1)
        if fails:
            with pytest.raises(RuntimeError, match="crash"):
                fit(tmp_path, [display, At(2, crash)], max_steps=3)
        else:
            fit(tmp_path, [display], max_steps=3)
        stream.close()
        written = reading.result()

    assert "training" in written
    assert ("3/3" in written) != fails
    assert "val_loss" in written or fails
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # the cursor is back
