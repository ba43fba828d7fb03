"""A dry run knows a run's sizes from its settings alone."""

import json
from io import StringIO
from pathlib import Path

import pytest
from composing import sft_settings
from rich.console import Console

from nemo_reasoning.config.model import Init
from nemo_reasoning.errors import ConfigError, DataError, ModelSourceError
from nemo_reasoning.training.dry_run import RunPlan, plan_run, plan_table


def rendered(plan: RunPlan) -> dict[str, str]:
    """Return the table's rows as the terminal shows them."""
    out = StringIO()
    Console(file=out, width=400).print(plan_table(plan))
    lines = [line.strip("│┃ \n").split("│") for line in out.getvalue().splitlines() if "│" in line]
    return {label.strip(): value.strip() for label, value in lines}


@pytest.mark.smoke
def test_llama3_8b_on_an_80_gb_card() -> None:
    plan = plan_run(sft_settings("model=llama3_8b", "hardware=gpu_80gb"))

    assert plan.parameters == 8_030_261_248
    # 32 layers x 64 x ((4096 + 6144) + (4096 + 4096) + (4096 + 28672) + (14336 + 4096))
    assert plan.trainable_parameters == 142_606_336
    assert plan.weight_bytes == 2 * plan.parameters
    assert (plan.tokens_per_step, plan.micro_batches) == (16 * 4096, 8)
    assert (plan.rows, plan.steps) == (71_250, 8_906)


def test_qlora_plans_its_linears_in_four_bits() -> None:
    plan = plan_run(sft_settings("model=llama3_8b", "hardware=gpu_24gb", "peft=qlora"))

    linears = 6_979_321_856  # of 8,030,261,248; the rest stays in bfloat16
    assert plan.weight_bytes == 2 * (plan.parameters - linears) + linears * 4.126953125 / 8
    assert rendered(plan)["base weights"] == "5.3 GiB"
    assert plan.stages[-1].startswith("train with qlora, bf16-mixed")
    assert plan.trainable_parameters == 142_606_336


def test_steps_follow_the_settings() -> None:
    settings = sft_settings(
        *("model=llama3_8b", "hardware=gpu_80gb", "data=builtin"), "trainer.precision=32", "trainer.micro_batch_size=2"
    )
    settings.trainer.max_steps, settings.trainer.devices, settings.trainer.tensor_model_parallel_size = 7, 8, 2
    plan = plan_run(settings)

    assert (plan.rows, plan.steps) == (1900, 7)
    assert plan.micro_batches == 16 // (2 * 4)
    assert plan.weight_bytes == 4 * plan.parameters
    settings.data.rows, settings.trainer.max_steps = 3, None
    assert plan_run(settings).steps == 1


def test_files_are_counted_when_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").touch()
    with pytest.raises(DataError, match=r"no such file: b\.jsonl"):
        plan_run(sft_settings("data=jsonl", "data.paths=[a.jsonl,b.jsonl]"))
    Path("b.jsonl").touch()
    plan = plan_run(sft_settings("hardware=cpu", "data=jsonl", "data.paths=[a.jsonl,b.jsonl]"))

    assert (plan.rows, plan.steps) == (None, None)
    assert plan.stages[0] == "prepare a.jsonl, b.jsonl -> outputs/smollm2_135m_lora/data"
    assert rendered(plan)["training rows"] == rendered(plan)["steps"] == "known once the data are read"


def test_stages_name_what_will_happen() -> None:
    settings = sft_settings("hardware=gpu_80gb", "model=llama3_8b", "name=run")
    assert plan_run(settings).stages == (
        "prepare math, code, science of nvidia/Llama-Nemotron-Post-Training-Dataset -> outputs/run/data",
        "base model: meta-llama/Meta-Llama-3-8B-Instruct",
        "train with lora, bf16-mixed, 1 x gpu_80gb; validate and save every 500 steps -> outputs/run/checkpoints",
    )
    settings.evaluate, settings.model.init = 9, Init.random
    stages = plan_run(settings).stages
    assert (len(stages), stages[1]) == (5, "base model: random weights")
    assert stages[2] == "measure 9 held-out problems in both modes"
    assert stages[4].endswith("report -> outputs/run/report.html")


def test_the_table_shows_it_all() -> None:
    plan = plan_run(sft_settings("model=llama3_8b", "hardware=gpu_80gb"))

    assert rendered(plan) == {
        "base parameters": "8,030,261,248",
        "trainable parameters": "142,606,336 (1.78%)",
        "base weights": "15.0 GiB",
        "tokens a step, at most": "65,536 in 8 micro-batches a replica",
        "training rows": "about 71,250",
        "steps": "8,906",
        **{f"stage {number}": stage for number, stage in enumerate(plan.stages, start=1)},
        "data": plan.forecast,
        "speed": plan.speed,
        "training": plan.duration,
    }


def test_a_local_models_shape_is_read(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny_llama.parent))
    local = ("model=hf_local", "model.source='~/tiny'", "model.template=chatml", "hardware=cpu")
    config = json.loads((tiny_llama / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    layer = hidden * (2 * hidden) + hidden * hidden + 3 * hidden * inner + 2 * hidden  # 2 of 4 heads have keys

    plan = plan_run(sft_settings(*local, "trainer.seq_length=512"))
    assert plan.parameters == 2 * layer + hidden + 2 * config["vocab_size"] * hidden
    with pytest.raises(ConfigError, match="trainer.seq_length=4096 exceeds the 512 tokens of hf_local"):
        plan_run(sft_settings(*local))


def test_a_shape_nobody_knows_yet() -> None:
    settings = sft_settings("model=hf_local", "model.source=some/llama", "model.template=llama3", "hardware=cpu")

    with pytest.raises(
        ModelSourceError, match="model.source=some/llama is not a local directory, .* download it first"
    ):
        plan_run(settings)
