"""Facts become verdicts, and only what would stop a training fails."""

import re
from dataclasses import replace
from typing import Any

import pytest
from composing import asked_settings

from nemo_reasoning.doctor.checks import Check, Verdict, judge
from nemo_reasoning.doctor.facts import OWN_CONTAINER, Access, Disk, Gpu, Machine, Source, Torch
from nemo_reasoning.doctor.needs import Needs, needs_of

H100 = Gpu(name="NVIDIA H100 80GB HBM3", memory_gb=79.6, capability=(9, 0))
T4 = Gpu(name="Tesla T4", memory_gb=15.0, capability=(7, 5))
TORCH = Torch(version="2.9.0", cuda="13.0", available=True, bf16=True)
MODEL = Source(key="model.source", name="meta-llama/Meta-Llama-3-8B-Instruct", access=Access.granted)
PACKAGES: dict[str, str | None] = {
    **{"nemo_toolkit": "2.6.0", "megatron-core": "0.15.0", "torch": "2.9.0", "lightning": "2.4.0"},
    **{"transformers": "4.57.0", "hydra-core": "1.3.2", "huggingface_hub": "0.36.0", "transformer-engine": "2.9"},
}
MACHINE = Machine(
    gpus=(H100,),
    driver="580.65.06",
    driver_cuda="13.0",
    nvlink=None,
    visible=None,
    torch=TORCH,
    ram_gb=200.0,
    ram_free_gb=190.0,
    cores=16,
    python="3.12.3",
    container="NeMo Framework 25.11",
    packages=PACKAGES,
    problems={},
    outputs=Disk(path="outputs/x", free_gb=500.0, device=1),
    cache=Disk(path="cache", free_gb=500.0, device=1),
    downloads=Disk(path="hub", free_gb=100.0, device=2),
    imported=False,
    token=True,
    sources=(MODEL,),
)
NEEDS = Needs(
    plan="llama3_8b",
    speed=None,
    problem=None,
    on_cpu=False,
    devices=1,
    bf16=True,
    quantised=False,
    gpu_gb=66.5,
    ram_gb=2.0,
    export_gb=20.0,
    import_gb=32.0,
    output_gb=7.0,
    cache_gb=15.0,
    download_gb=15.0,
    hub=True,
)


def unusual(checks: list[Check]) -> dict[str, Verdict]:
    """Return the verdicts that are not ok."""
    return {check.name: check.verdict for check in checks if check.verdict is not Verdict.ok}


def test_a_sound_machine_passes() -> None:
    checks = judge(MACHINE, NEEDS)

    assert unusual(checks) == {}
    assert not any(check.remedy for check in checks)
    assert {"GPU", "GPU memory", "driver", "CUDA", "bfloat16", "RAM", "disk", "Python"} <= {c.name for c in checks}


def without(*names: str) -> dict[str, str | None]:
    return {**PACKAGES, **dict.fromkeys(names)}


FAIL, WARN = Verdict.fail, Verdict.warn
OLD_TORCH = replace(TORCH, bf16=False)
FACTS: list[tuple[dict[str, Any], dict[str, Verdict]]] = [
    ({"gpus": ()}, {"GPU": FAIL}),
    ({"gpus": (replace(H100, memory_gb=44.4),)}, {"GPU memory": FAIL}),
    ({"gpus": (replace(H100, memory_gb=None),)}, {"GPU memory": WARN}),
    ({"gpus": (replace(T4, memory_gb=80.0),), "torch": OLD_TORCH}, {"compute capability": WARN, "bfloat16": FAIL}),
    ({"driver_cuda": "12.4"}, {"CUDA": FAIL}),
    ({"driver_cuda": "13.2"}, {}),
    ({"torch": replace(TORCH, available=False)}, {"CUDA": FAIL}),
    ({"torch": replace(TORCH, cuda=None, available=False)}, {"CUDA": FAIL}),
    ({"ram_gb": 31.0, "ram_free_gb": 30.0}, {"RAM": FAIL}),
    ({"ram_gb": 31.0, "ram_free_gb": 30.0, "imported": True}, {}),
    ({"ram_free_gb": 20.0}, {"RAM": WARN}),
    ({"ram_gb": 19.0, "ram_free_gb": 18.0, "imported": True}, {"RAM to export": WARN}),
    ({"outputs": replace(MACHINE.outputs, free_gb=21.0)}, {"disk": FAIL}),  # 7 and 15 on the same one
    ({"downloads": replace(MACHINE.downloads, free_gb=14.0)}, {"disk": FAIL}),
    ({"outputs": replace(MACHINE.outputs, problem="it is no folder")}, {"folder": FAIL}),
    ({"cache": replace(MACHINE.cache, problem="read-only"), "imported": True}, {}),  # nothing is written there
    ({"python": "3.10.14"}, {"Python": FAIL}),
    ({"container": None}, {"container": WARN}),
    ({"container": OWN_CONTAINER}, {"container": WARN}),
    ({"problems": {"nemo_toolkit": "nemo_toolkit is not installed."}}, {"nemo_toolkit": FAIL}),
    ({"packages": {**PACKAGES, "megatron-core": "0.16.0rc0"}}, {}),
    ({"problems": {"megatron-core": "megatron-core 0.17.0 lacks something."}}, {"megatron-core": FAIL}),
    ({"packages": without("torch"), "torch": None}, {"packages": FAIL}),
    ({"packages": without("transformer-engine")}, {"Transformer Engine": WARN}),
    ({"packages": without("bitsandbytes")}, {}),
    ({"token": False}, {"hub token": WARN}),
    *(
        ({"sources": (replace(MODEL, access=access),)}, {"base model": FAIL})
        for access in (Access.gated, Access.missing, Access.offline)
    ),
    ({"sources": (replace(MODEL, access=Access.here),), "token": False}, {}),
]


@pytest.mark.parametrize(("facts", "expected"), FACTS)
def test_one_fact_decides_one_verdict(facts: dict[str, Any], expected: dict[str, Verdict]) -> None:
    checks = judge(replace(MACHINE, **facts), NEEDS)

    assert unusual(checks) == expected
    assert all(check.remedy for check in checks if check.verdict is not Verdict.ok)


def test_qlora_needs_bitsandbytes() -> None:
    assert unusual(judge(MACHINE, replace(NEEDS, quantised=True))) == {"packages": FAIL}


@pytest.mark.parametrize(("nvlink", "expected"), [(True, {}), (False, {"NVLink": WARN}), (None, {"NVLink": WARN})])
def test_several_gpus(nvlink: bool | None, expected: dict[str, Verdict]) -> None:
    machine = replace(MACHINE, gpus=(H100, H100), nvlink=nvlink)

    assert unusual(judge(machine, replace(NEEDS, devices=2))) == expected
    assert unusual(judge(machine, replace(NEEDS, devices=3))) == {"GPU": FAIL}


def test_a_cpu_needs_no_gpu_and_a_gpu_should_not_lie_idle() -> None:
    needs = replace(NEEDS, on_cpu=True, devices=0, gpu_gb=None)
    bare = replace(MACHINE, gpus=(), torch=None, container=None)

    assert unusual(judge(bare, needs)) == {}
    assert unusual(judge(MACHINE, needs)) == {"GPU": WARN}


def test_remedies_name_what_to_do() -> None:
    gated = replace(MODEL, access=Access.gated)
    remedies = {check.name: check.remedy for check in judge(replace(MACHINE, gpus=(), sources=(gated,)), NEEDS)}

    assert "https://huggingface.co/meta-llama/Meta-Llama-3-8B-Instruct" in remedies["base model"]
    assert "hardware=cpu" in remedies["GPU"]
    (hidden,) = (c for c in judge(replace(MACHINE, gpus=(), visible="-1"), NEEDS) if c.name == "GPU")
    assert hidden.remedy.startswith("CUDA_VISIBLE_DEVICES=-1 hides others: unset it")


def test_needs_follow_the_settings() -> None:
    needs = needs_of(asked_settings("model=llama3_8b", "hardware=gpu_80gb"))

    assert (needs.problem, needs.on_cpu, needs.devices, needs.hub) == (None, False, 1, True)
    assert needs.gpu_gb is not None
    assert 60 < needs.gpu_gb <= 80
    assert needs.download_gb == pytest.approx(2 * 8.03e9 / 2**30, rel=1e-3)
    assert 4 < needs.import_gb < needs.cache_gb  # one weight at a time


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("model=llama2_13b", "hardware=gpu_24gb"), "llama2_13b with peft=lora.*What fits: .*hardware=gpu_40gb"),
        (("hardware=cpu", "trainer.epochs=0"), "trainer.epochs=0.0: must be above 0"),
    ],
)
def test_settings_that_cannot_train_are_a_failing_check(overrides: tuple[str, ...], problem: str) -> None:
    needs = needs_of(asked_settings(*overrides))
    [check] = [check for check in judge(MACHINE, needs) if check.name == "plan"]

    assert check.verdict is Verdict.fail
    assert re.search(problem, check.remedy)
