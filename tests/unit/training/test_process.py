"""Settings of the whole process reach torch and Python, and leave it as it was."""

from typing import Any

import pytest
import torch
from composing import sft_settings

from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.errors import BackendError
from nemo_reasoning.training.process import prepare_process, switched, with_expandable_segments


def settings(*overrides: str) -> SftSettings:
    """Return settings of a model with random weights."""
    return sft_settings("model=llama32_1b", "hardware=gpu_80gb", "model.init=random", *overrides)


@pytest.mark.parametrize(
    "chosen",
    [
        "trainer.tf32=true",
        "trainer.memory_fraction=0.5",
        "trainer.fp8=delayed",
        "trainer.offload_layers=2",
        "optim.kind=paged_adamw_8bit",
    ],
)
def test_a_machine_without_gpu_refuses_before_anything_is_loaded(chosen: str) -> None:
    prepare_process(settings(), cuda=False)
    with pytest.raises(BackendError, match=f"{chosen} needs"):
        prepare_process(settings(chosen), cuda=False)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "expandable_segments:True"),
        (
            {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64,expandable_segments:False"},
            "max_split_size_mb:64,expandable_segments:True",
        ),
        ({"PYTORCH_ALLOC_CONF": "backend:native"}, "backend:native,expandable_segments:True"),
    ],
)
def test_expandable_segments_join_what_is_set(environment: dict[str, str], expected: str) -> None:
    assert with_expandable_segments(environment) == expected


def test_switches_hold_for_the_block_alone() -> None:
    before = torch.get_float32_matmul_precision()
    with switched(settings("trainer.tf32=true").trainer):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("none", {"fp8": None}),
        ("delayed", {"fp8": "hybrid", "fp8_recipe": "delayed", "fp8_amax_history_len": 1024}),
        ("tensorwise", {"fp8": "hybrid", "fp8_recipe": "tensorwise", "first_last_layers_bf16": True}),
    ],
)
def test_fp8_reaches_nemos_precision_plugin(nemo_cpu: None, chosen: str, expected: dict[str, Any]) -> None:
    from nemo_reasoning.training.nemo_objects import _build_precision

    plugin = _build_precision(settings(f"trainer.fp8={chosen}").trainer)
    assert vars(plugin.dtype_config).items() >= expected.items()
    assert (plugin.precision, plugin.dtype_config.fp8_param) == ("bf16-mixed", False)


def test_offloading_reaches_megatrons_configuration(nemo_cpu: None) -> None:
    from nemo_reasoning.training.nemo_objects import build_model

    config = build_model(settings("trainer.offload_layers=3"), base=None, tokenizer=None).config
    assert (config.cpu_offloading, config.cpu_offloading_num_layers) == (True, 3)
    assert (config.cpu_offloading_activations, config.cpu_offloading_weights) == (True, False)
