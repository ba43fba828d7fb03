"""Settings of the whole process reach torch and Python, and leave it as it was."""

import os
import time
from contextlib import nullcontext
from typing import Any

import psutil
import pytest
import torch
from composing import sft_settings

from nemo_reasoning.backend.runtime import Backend
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.errors import BackendError, ConfigError
from nemo_reasoning.training.process import (
    first_process,
    prepare_process,
    process_began,
    switched,
    with_expandable_segments,
)


def settings(*overrides: str) -> SftSettings:
    """Return settings of a model with random weights."""
    return sft_settings("model=llama32_1b", "hardware=gpu_80gb", "model.init=random", *overrides)


def test_a_clock_that_is_set_does_not_change_how_long_this_process_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic() - (time.time() - psutil.Process().create_time())
    now = time.time()
    for day in (-86400, 0, 86400):
        monkeypatch.setattr(time, "time", lambda day=day: now + day)
        assert process_began() == pytest.approx(began, abs=1)


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


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, ""),
        ({"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "interactive"}, ""),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, "LOCAL_RANK=1, RANK=3"),
        ({"LOCAL_RANK": "two"}, "LOCAL_RANK=two"),
        ({"GROUP_RANK": "1"}, "GROUP_RANK=1"),
        ({"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "weekend"}, "SLURM_NTASKS=8"),
        ({"SLURM_PROCID": "5", "SLURM_JOB_NAME": "bash"}, "SLURM_PROCID=5"),
    ],
)
def test_a_place_that_another_job_left_is_refused(
    monkeypatch: pytest.MonkeyPatch, place: dict[str, str], wrong: str
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    refusal = pytest.raises(ConfigError, match=f"^{wrong} in the environment, .* make 1 process; .*unset ")
    with refusal if wrong else nullcontext():
        prepare_process(settings(), cuda=False)


def test_switches_hold_for_the_block_alone() -> None:
    before = torch.get_float32_matmul_precision()
    with switched(settings("trainer.tf32=true").trainer):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_deterministic_sets_what_libraries_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"CUBLAS_WORKSPACE_CONFIG": ":16:8", "NCCL_ALGO": ""})
    prepare_process(settings(), cuda=False)
    assert os.environ == {"CUBLAS_WORKSPACE_CONFIG": ":16:8", "NCCL_ALGO": ""}

    prepare_process(settings("trainer.deterministic=true"), cuda=False)

    assert os.environ == {
        "CUBLAS_WORKSPACE_CONFIG": ":16:8",
        "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0",
        "NCCL_ALGO": "^NVLS",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("CUBLAS_WORKSPACE_CONFIG", ":0:0"), ("NVTE_ALLOW_NONDETERMINISTIC_ALGO", "1"), ("NCCL_ALGO", "NVLS")],
)
def test_an_environment_that_is_not_deterministic_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setattr("os.environ", {name: value})
    with pytest.raises(BackendError, match=f"trainer.deterministic=true.*{name}={value}; unset it, or set it to"):
        prepare_process(settings("trainer.deterministic=true"), cuda=False)
    assert os.environ == {name: value}


@pytest.mark.parametrize("chosen", ["deterministic", "expandable_segments"])
def test_what_is_read_once_is_refused_when_cuda_is_in_use(monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    monkeypatch.setattr("os.environ", {})
    monkeypatch.setattr("nemo_reasoning.training.process.resolve", lambda **_: Backend(True, False))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(BackendError, match=f"trainer.{chosen}=true, but CUDA is in use"):
        prepare_process(settings(f"trainer.{chosen}=true"))
    assert os.environ == {}


def test_deterministic_kernels_hold_for_the_block_alone(nemo_cpu: None) -> None:
    from nemo_reasoning.training.nemo_objects import build_model

    chosen = settings("trainer.deterministic=true")
    with switched(chosen.trainer):
        assert torch.are_deterministic_algorithms_enabled()
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
        with pytest.raises(RuntimeError, match="deterministic"):
            torch.zeros(3).put_(torch.zeros(2, dtype=torch.int64), torch.zeros(2))
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
    assert build_model(chosen, base=None, tokenizer=None).config.deterministic_mode
    assert not build_model(settings(), base=None, tokenizer=None).config.deterministic_mode


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


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True),  # as Lightning starts them
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False),  # torchrun, on the second machine
        ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, True),
        ({"SLURM_PROCID": "1", "SLURM_LOCALID": "1"}, False),  # srun
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),  # Lightning, within a task of Slurm's
    ],
)
def test_one_process_of_all_writes(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], first: bool) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert first_process() == first
