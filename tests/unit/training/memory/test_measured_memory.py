"""What the planner predicts is what a real training step holds, to the byte where it can be."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from measured_run import Measured, measure, settings_of

from nemo_reasoning.config.trainer import Recompute
from nemo_reasoning.training.memory.activations import activation_bytes
from nemo_reasoning.training.memory.static import static_bytes
from nemo_reasoning.training.memory.workload import Workload, workload_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),  # NeMo's, at every start
]
RUNS = {
    "bf16": ("peft.dropout=0.1",),
    "float32": ("trainer.precision=32",),
    "attention": ("peft.target_modules=[linear_qkv,linear_proj]", "peft.dim=4", "trainer.recompute=selective"),
    "none": (),
    "8bit": ("optim=adamw_8bit",),
    "full_8bit": ("peft=none", "optim=adamw_8bit"),
    "full": ("trainer.recompute=full",),
    "head norms": ("peft.dropout=0.1",),
    "head norms float32": ("trainer.precision=32",),
    "biases": ("optim=adamw_8bit",),
}
QWEN3, QWEN2 = {"family": "qwen3", "qk_norm": True, "head_dim": 24}, {"family": "qwen2", "qkv_bias": True}
SHAPES = {"head norms": QWEN3, "head norms float32": QWEN3, "biases": QWEN2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, smollm2_hf: Path):  # type: ignore[no-untyped-def]
    """Return a function from the name of a run to what was predicted for it and what it held."""

    @cache
    def known(name: str) -> tuple[Workload, Measured]:
        folder = tmp_path_factory.mktemp(name)
        settings = settings_of(smollm2_hf, folder, *RUNS[name], **SHAPES.get(name, {}))
        with pytest.MonkeyPatch.context() as patch:
            found = measure(settings, tokenizer=smollm2_hf, folder=folder, monkeypatch=patch)
        assert settings.model.architecture is not None
        return replace(workload_of(settings, settings.model.architecture), seq_length=found.positions), found

    return known


def assert_static_bytes(work: Workload, found: Measured) -> None:
    expected = static_bytes(work)
    trained = (expected.weights, 0) if work.trains_base else (expected.adapter, expected.weights)
    assert trained == (found.trained, found.frozen)
    assert expected.gradients == found.gradients
    assert expected.optimizer == found.optimizer


@pytest.mark.parametrize("name", ["bf16", "float32", "attention", "8bit", "full_8bit", *SHAPES])
def test_weights_adapter_gradients_and_optimiser_are_exact(run, name: str) -> None:  # type: ignore[no-untyped-def]
    assert_static_bytes(*run(name))


@pytest.mark.parametrize("name", ["bf16", "float32"])
def test_the_base_is_built_in_the_dtype_it_is_held_in(run, name: str) -> None:  # type: ignore[no-untyped-def]
    work, found = run(name)

    assert found.built == static_bytes(work).weights == found.frozen


def test_they_are_for_the_real_135m_model(tmp_path: Path, smollm2_hf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from architectures import listed

    settings = settings_of(
        smollm2_hf, tmp_path, "trainer.seq_length=128", "trainer.global_batch_size=1", "trainer.micro_batch_size=1"
    )
    settings.model.architecture = listed("smollm2_135m")
    found = measure(settings, tokenizer=smollm2_hf, folder=tmp_path, monkeypatch=monkeypatch)
    assert_static_bytes(workload_of(settings, settings.model.architecture), found)


@pytest.mark.parametrize("name", RUNS)
def test_what_autograd_keeps(run, name: str) -> None:  # type: ignore[no-untyped-def]
    """Apart from what the loss keeps: the gradients of its hidden states, less than 1 % here."""
    work, found = run(name)
    assert found.saved == pytest.approx(activation_bytes(work), rel=0.02)


def test_recomputing_keeps_less_and_learns_the_same(run) -> None:  # type: ignore[no-untyped-def]
    (work, plain), (again, full) = run("none"), run("full")
    assert (work.recompute, again.recompute) == (Recompute.none, Recompute.full)
    assert full.saved < plain.saved / 2
    assert plain.gradient.abs().sum() > 0
    torch.testing.assert_close(full.gradient, plain.gradient)
