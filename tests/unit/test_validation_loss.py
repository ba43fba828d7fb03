"""What loss=dpo cannot be combined with."""

from pathlib import Path

import pytest
from composing import sft_settings

from nemo_reasoning.config.train import validate
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.training.dry_run import plan_run

PAIRS = ("data=jsonl", "data.paths=[pairs.jsonl]", "loss=dpo")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["peft=none"], "peft=none with loss=dpo: its reference is the model without its adapter"),
        (["trainer.packing=false"], "trainer.packing=false with loss=dpo"),
        (
            ["trainer.devices=2", "trainer.pipeline_model_parallel_size=2"],
            "pipeline_model_parallel_size=2 with loss=dpo",
        ),
        (["data=builtin", "data.paths=[]"], "data=jsonl data.paths=[pairs.jsonl]"),
        (["loss.beta=null"], "choose loss=dpo and a number"),
        (["loss.beta=0"], "loss.beta=0.0: must be above 0"),
        (["loss=supervised", "loss.beta=0.1"], "loss.beta=0.1 with loss=supervised"),
    ],
)
def test_what_pairs_exclude(overrides: list[str], told: str) -> None:
    given = {name.partition("=")[0]: name for name in ("hardware=gpu_80gb", *PAIRS, *overrides)}
    with pytest.raises(ConfigError) as refused:
        validate(sft_settings(*given.values()))
    assert told in str(refused.value)


def test_going_on_with_an_adapter_would_compare_with_the_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 16, "lora_alpha": 8, "use_rslora": true, "target_modules": "all-linear"}'
    )
    start = f"peft.start_from={tmp_path}"
    with pytest.raises(ConfigError, match=r"set\s+peft.start=merged"):
        validate(sft_settings(*PAIRS, start))
    validate(sft_settings(*PAIRS, start, "peft.start=merged"))


def test_no_time_is_predicted(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("")
    gpu = ("model=llama3_8b", "hardware=gpu_80gb", "hardware.gpu=NVIDIA H100 80GB HBM3")
    plan = plan_run(sft_settings(*gpu, "data=jsonl", f"data.paths=[{tmp_path / 'pairs.jsonl'}]", "loss=dpo"))
    assert plan.speed is not None
    assert plan.speed.startswith("not predicted: a step of loss=dpo")
    assert plan.duration is None
