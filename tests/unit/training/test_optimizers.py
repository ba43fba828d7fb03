"""Every kind of AdamW learns what the plain one does, and goes on from a checkpoint as if never stopped."""

from pathlib import Path

import pytest
import torch
from short_runs import losses, train_here

from nemo_reasoning.config.trainer import OptimKind
from nemo_reasoning.training.optimizers import optimizer_in_use
from nemo_reasoning.training.train import TrainingInputs

FULL = ("peft=none", "optim.lr=2e-3", "trainer.precision=bf16-mixed")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fused_adamw", "adamw_8bit"])
def test_a_kind_of_adamw_learns_and_resumes_exactly(
    inputs: TrainingInputs, tmp_path: Path, nemo_cpu: None, kind: str
) -> None:
    """Full fine-tuning has tensors that are 8-bit, small ones that are not, and gate and up in one."""
    chosen = (*FULL, f"optim={kind}")
    whole = losses(train_here(inputs, tmp_path / "whole", *chosen))
    run = train_here(inputs, tmp_path / "parts", *chosen, "trainer.max_steps=2")
    assert losses(train_here(inputs, run, *chosen)) == whole
    assert whole[3] < whole[0] - 0.1


@pytest.mark.parametrize("kind", list(OptimKind))
def test_megatron_is_given_back_what_it_had(nemo_cpu: None, kind: OptimKind) -> None:
    from megatron.core import optimizer

    before = (
        optimizer.Adam,
        optimizer.USING_PYTORCH_OPTIMIZER,
        optimizer._get_megatron_optimizer_based_on_param_groups,
    )
    with optimizer_in_use(kind):
        changed = optimizer.Adam is not before[0]
    assert changed == (kind is not OptimKind.adamw)
    after = (optimizer.Adam, optimizer.USING_PYTORCH_OPTIMIZER, optimizer._get_megatron_optimizer_based_on_param_groups)
    assert after == before


@pytest.mark.parametrize("kind", [OptimKind.fused_adamw, OptimKind.adamw_8bit])
def test_what_megatron_builds_is_that_kind(nemo_cpu: None, kind: OptimKind) -> None:
    from megatron.core import optimizer

    weight = torch.nn.Parameter(torch.ones(128, 64))
    with optimizer_in_use(kind):
        built = optimizer.Adam(params=[weight], adam_w_mode=True, lr=0.1, weight_decay=0.0)
    weight.grad = torch.ones_like(weight)
    built.step()
    state = built.state[weight]
    assert float(weight.mean()) == pytest.approx(0.9, abs=1e-3)  # the first step of Adam is as long as the rate
    if kind is OptimKind.fused_adamw:
        assert built.defaults["fused"]
    else:
        assert state["state1"].dtype is torch.uint8
