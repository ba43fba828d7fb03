"""A run that was killed goes on as if nothing had happened."""

import os
import signal
import time
from pathlib import Path

import pytest
from launch import Process, records, run, tiny_overrides

from nemo_reasoning.training.checkpoints import list_checkpoints
from nemo_reasoning.training.run_dir import Run

STEPS = 16
pytestmark = pytest.mark.slow


def _overrides(shared_llama: Path, out: Path, steps: int = STEPS) -> list[str]:
    return tiny_overrides(shared_llama, out, f"trainer.max_steps={steps}", "trainer.eval_interval=4")


@pytest.fixture(scope="module")
def uninterrupted(shared_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    run("sft_lora", *_overrides(shared_llama, out))
    return out


def _stop_after(step: int, sign: signal.Signals, *, overrides: list[str], out: Path) -> int:
    """Start a run, send a signal once it has recorded a step, and return its exit code."""
    with Path(os.devnull).open("wb") as nowhere:
        process = Process("sft_lora", *overrides, stdout=nowhere, stderr=nowhere)
        while process.running() and not (out / "metrics.jsonl").exists():
            time.sleep(0.01)
        while process.running() and max(records(out, "loss"), default=0) < step:
            time.sleep(0.01)
        process.send_signal(sign)
        return process.wait()


def _last_step(out: Path) -> int:
    """Return the step a run would go on from."""
    last = Run.open(out).last
    return 0 if last is None else last.step


def _tokens_of_steps(out: Path) -> dict[int, tuple[int, int]]:
    """Return how many tokens, and supervised ones, the rows of each step have."""
    seconds = records(out, "step_seconds")
    rates = [records(out, f"{kind}_tokens_per_second") for kind in ("nonpad", "supervised")]
    return {step: (round(rates[0][step] * seconds[step]), round(rates[1][step] * seconds[step])) for step in seconds}


@pytest.mark.parametrize("step", [3, 9])
def test_a_killed_run_ends_with_the_same_losses(
    shared_llama: Path, uninterrupted: Path, tmp_path: Path, step: int
) -> None:
    out = tmp_path / "killed"
    code = _stop_after(step, signal.SIGKILL, overrides=_overrides(shared_llama, out), out=out)
    assert code == -signal.SIGKILL
    assert _last_step(out) < STEPS
    run("sft_lora", *_overrides(shared_llama, out))
    for key in ("loss", "val_loss", "lr", "grad_norm"):
        expected = records(uninterrupted, key)
        assert records(out, key) == pytest.approx(expected, rel=1e-6), key
    assert len(records(out, "loss")) == STEPS
    assert Run.open(out).selected()[0].step == Run.open(uninterrupted).selected()[0].step


def test_sigterm_saves_the_step_it_interrupts(shared_llama: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "terminated"
    code = _stop_after(5, signal.SIGTERM, overrides=_overrides(shared_llama, out), out=out)
    assert code == 128 + signal.SIGTERM
    saved = _last_step(out)
    assert saved >= 5
    assert max(records(out, "loss")) == saved
    run("sft_lora", *_overrides(shared_llama, out))
    assert records(out, "loss") == pytest.approx(records(uninterrupted, "loss"), rel=1e-6)


def test_raising_max_steps_goes_on_with_the_next_rows(shared_llama: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "longer"
    run("sft_lora", *_overrides(shared_llama, out, steps=8))
    output = run("sft_lora", *_overrides(shared_llama, out))
    assert "resuming after step 8" in output
    counts = _tokens_of_steps(uninterrupted)
    assert len(counts) == STEPS
    assert len(set(counts.values())) > STEPS / 2  # so that other rows would be seen
    assert _tokens_of_steps(out) == counts
    rates, longer = records(out, "lr"), records(uninterrupted, "lr")
    assert rates[12] == pytest.approx(longer[12])  # the schedule is that of the longer run


def test_a_finished_run_is_left_alone(shared_llama: Path, uninterrupted: Path) -> None:
    before = {path.path: path.path.stat().st_mtime_ns for path in list_checkpoints(uninterrupted)}
    run("sft_lora", *_overrides(shared_llama, uninterrupted))
    assert {path.path: path.path.stat().st_mtime_ns for path in list_checkpoints(uninterrupted)} == before
    assert len(records(uninterrupted, "loss")) == STEPS


def test_other_settings_do_not_continue_a_run(shared_llama: Path, uninterrupted: Path) -> None:
    output = run("sft_lora", *_overrides(shared_llama, uninterrupted), "optim.lr=0.5", succeeds=False)
    assert "CheckpointError" in output
    assert "optim.lr was" in output
