"""The newest Megatron-Core beside the pinned one: a run begun on one goes on under the other."""

import shutil
import sys
from pathlib import Path

import pytest
from processes import HERE, OVERLAYS, last_json, run

from nemo_reasoning.training.loggers import read_metrics

sys.path.append(str(Path(__file__).parents[1] / "unit" / "training"))
from short_runs import ADAPTER, prepare_inputs, train_here

MEGATRON = OVERLAYS / "megatron-core"


@pytest.mark.slow
@pytest.mark.usefixtures("nemo_cpu")
def test_a_run_goes_on_under_megatron_0_16_with_the_same_losses(tmp_path: Path) -> None:
    inputs = prepare_inputs(tmp_path)
    whole = read_metrics(train_here(inputs, tmp_path / "whole", *ADAPTER) / "metrics.jsonl")
    train_here(inputs, tmp_path / "run", *ADAPTER, "trainer.max_steps=2")

    answer = last_json(run(HERE / "short_run.py", tmp_path, *ADAPTER, overlays=(MEGATRON,)))

    assert answer["versions"]["megatron-core"] == "0.16.1"
    assert {"optimizer-call", "tensorstore"} <= set(answer["patches"])
    assert answer["loss"] == [step["loss"] for step in whole]
    assert answer["grad_norm"] == [step["grad_norm"] for step in whole]


@pytest.mark.slow
@pytest.mark.usefixtures("nemo_cpu")
def test_a_full_checkpoint_without_the_final_norms_extra_state_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nemo_reasoning.backend.torch_layers import TorchNorm

    inputs = prepare_inputs(tmp_path)
    full = ("peft=none", "optim.lr=0.001")
    whole = train_here(inputs, tmp_path / "whole", *full)
    with monkeypatch.context() as before:  # the norm as it was before 0.2
        before.delattr(TorchNorm, "get_extra_state")
        before.delattr(TorchNorm, "set_extra_state")
        shutil.rmtree(inputs.base)
        inputs = prepare_inputs(tmp_path)
        train_here(inputs, tmp_path / "run", *full, "trainer.max_steps=2")

    train_here(inputs, tmp_path / "run", *full)

    assert [step["loss"] for step in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [
        step["loss"] for step in read_metrics(whole / "metrics.jsonl")
    ]
