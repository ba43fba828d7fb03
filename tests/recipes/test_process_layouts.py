"""A layout of processes changes nothing: losses, norms of gradients and validation are those of one process."""

import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from launch import Ranks, records, run, tiny_overrides
from layouts import LAYOUTS, SHORT, TOLERANCE, Measured, go_back, largest_difference, train_in
from safetensors.torch import load_file

from nemo_reasoning.training.run_dir import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(shared_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Measured]:
    """Return the run of one process, and what it measured."""
    out = tmp_path_factory.mktemp("layouts") / "alone"
    return out, train_in(LAYOUTS["1"], shared_llama, out)


@pytest.mark.parametrize("layout", ["tensor 2, sequence", "data 2"])
def test_a_layout_changes_nothing(
    shared_llama: Path, alone: tuple[Path, Measured], tmp_path: Path, layout: str
) -> None:
    measured = train_in(LAYOUTS[layout], shared_llama, tmp_path / "run")
    assert largest_difference(alone[1], measured) < TOLERANCE, (measured, alone)


def test_a_run_goes_on_in_other_layouts(shared_llama: Path, alone: tuple[Path, Measured], tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_in(LAYOUTS["pipeline 2"], shared_llama, out)
    go_back(out, step=1)
    train_in(LAYOUTS["1"], shared_llama, out)
    go_back(out, step=2)
    measured = train_in(LAYOUTS["tensor 2"], shared_llama, out)
    assert largest_difference(alone[1], measured) < TOLERANCE, (measured, alone)
    adapters = []
    for folder in (alone[0], out):
        run("export", f"checkpoint={folder}", "formats=[hf_peft]")
        adapters.append(load_file(folder / "export" / "hf_peft" / "adapter_model.safetensors"))
    torch.testing.assert_close(*adapters, atol=1e-6, rtol=0)


def test_a_quantized_base_is_the_same_in_another_tensor_parallelism(shared_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    alone = train_in(LAYOUTS["1"], shared_llama, out, scheme="qlora")
    go_back(out, step=1)
    measured = train_in(LAYOUTS["tensor 2"], shared_llama, out, scheme="qlora")  # its digests are compared
    assert largest_difference(alone, measured) < TOLERANCE, (measured, alone)


def test_replicas_share_the_optimizer_and_go_on_in_another_layout(shared_llama: Path, tmp_path: Path) -> None:
    alone = train_in(LAYOUTS["1"], shared_llama, tmp_path / "alone", scheme="none")
    out, shared = tmp_path / "run", "trainer.distributed_optimizer=true"
    measured = train_in(LAYOUTS["data 2"], shared_llama, out, shared, scheme="none")
    go_back(out, step=1)
    resumed = train_in(LAYOUTS["1"], shared_llama, out, shared, scheme="none")
    assert largest_difference(alone, measured) < TOLERANCE, (measured, alone)
    assert largest_difference(alone, resumed) < TOLERANCE, (resumed, alone)


def test_a_signal_to_one_process_stops_all_and_one_that_is_killed_is_missed(shared_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    layout = LAYOUTS["data 2"]
    overrides = [*SHORT, *layout.overrides, "trainer.max_steps=400", "trainer.eval_interval=400"]

    def after_a_step(number: signal.Signals) -> tuple[list[int], list[str]]:
        before = records(out, "loss") if (out / "metrics.jsonl").exists() else {}
        started = Ranks("sft_lora", *tiny_overrides(shared_llama, out, *overrides), count=layout.processes)
        while started.processes[0].running() and (
            not (out / "metrics.jsonl").exists() or records(out, "loss").keys() <= before.keys()
        ):
            time.sleep(0.05)
        started.processes[1].send_signal(number)
        return started.wait()

    codes, texts = after_a_step(signal.SIGTERM)
    assert codes == [128 + signal.SIGTERM] * 2, texts
    last = Run.open(out).last
    assert last is not None
    assert f"SIGTERM: saved step {last.step} of 400" in texts[0]
    assert max(records(out, "loss")) == last.step
    codes, texts = after_a_step(signal.SIGKILL)
    assert codes == [1, -signal.SIGKILL], texts
    assert f"TrainingError: rank 1 on {socket.gethostname()} ended; step {last.step} is saved. " in texts[0]
    assert "Traceback" not in texts[0]
