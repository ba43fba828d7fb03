"""The speed and the cost of a run: predicted from a data sheet, and measured once it has steps."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from composing import composed, sft_settings

from nemo_reasoning.config.model import PeftScheme
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.config.trainer import Recompute
from nemo_reasoning.models.flops import training_flops
from nemo_reasoning.models.gpus import Gpu, find_gpu
from nemo_reasoning.models.sizes import flops_adapter_weights
from nemo_reasoning.training.dry_run import plan_run
from nemo_reasoning.training.forecast import forecast, told
from nemo_reasoning.training.memory.workload import Workload, workload_of
from nemo_reasoning.training.step_time import Rows, bound_seconds, step_seconds

ROOT = Path(__file__).resolve().parents[3]
H100, RTX_4090, A100 = (find_gpu(name) for name in ("H100 80GB HBM3", "GeForce RTX 4090", "A100-SXM4-80GB"))


def settled(*overrides: str) -> SftSettings:
    """Return the settings of a run of one row a micro-batch."""
    return sft_settings(
        *("model=llama3_8b", "hardware=gpu_80gb", "trainer.micro_batch_size=1", "trainer.recompute=none"), *overrides
    )


def work_of(*overrides: str) -> Workload:
    settings = settled(*overrides)
    assert settings.model.architecture is not None
    return workload_of(settings, settings.model.architecture)


def seconds(work: Workload, gpu: Gpu | None = H100, *, tokens: int = 4096) -> float:
    assert gpu is not None
    found = step_seconds(work, gpu, Rows(tokens, tokens), micro_batches=1)
    assert found is not None
    return found


def test_the_page_says_what_the_script_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import step_time

    step_time.main()
    *table, last = capsys.readouterr().out.splitlines()
    assert "\n".join(table) in (ROOT / "docs" / "results" / "step_time.md").read_text(encoding="utf-8")
    answer = json.loads(last)
    assert answer["reached"] == pytest.approx(answer["in use"], abs=0.005)
    assert max(map(abs, answer["judged"])) < 0.35


def test_what_it_computes_is_what_utilization_counts() -> None:
    """On a GPU whose memory takes no time, only the backward pass of attention, computed again, is more."""
    free = Gpu("X", bf16=1.0, fp8=None, bandwidth=1e30)
    work, settings = work_of("peft.dropout=0"), settled()
    counted = training_flops(
        shape=work.shape,
        tokens=4096,
        logit_tokens=4096,
        context=4097 / 2,
        adapter_weights=flops_adapter_weights(work.shape, settings.peft),
    )
    attention = 4 * 4096 * work.shape.num_layers * 4096 * 4097 / 2
    assert bound_seconds(work, free, Rows(4096, 4096)) == pytest.approx(counted + attention / 2, rel=1e-6)


def test_what_costs_time_costs_time() -> None:
    plain = work_of()
    assert seconds(plain, RTX_4090) > 3 * seconds(plain)
    assert 1.2 < seconds(replace(plain, recompute=Recompute.full)) / seconds(plain) < 1.5
    assert seconds(work_of("peft=qlora")) > seconds(plain)
    assert seconds(work_of("peft=dora")) > seconds(plain)
    assert seconds(work_of("trainer.fp8=delayed")) < 0.8 * seconds(plain)
    assert seconds(replace(plain, scheme=PeftScheme.none)) > 1.3 * seconds(plain)
    assert seconds(plain, tokens=8192) > 2.1 * seconds(plain)  # attention grows with the square
    assert seconds(plain, tokens=16) == pytest.approx(seconds(plain, tokens=32), rel=0.05)  # launches decide


def test_a_pipeline_is_filled_and_drained() -> None:
    parts = ("model=llama3_70b", "hardware=gpu_141gb", "trainer.devices=4", "trainer.pipeline_model_parallel_size=4")
    work, rows = work_of(*parts, "trainer.packing=false"), Rows(4096, 4096)
    assert H100 is not None
    once, four = (step_seconds(work, H100, rows, micro_batches=number) or 0.0 for number in (1, 4))
    assert four / once == pytest.approx(7 / 4, rel=0.01)


def test_precision_a_gpu_does_not_have_is_not_predicted() -> None:
    assert A100 is not None
    assert bound_seconds(work_of("trainer.fp8=delayed"), A100, Rows(4096, 4096)) is None
    assert bound_seconds(work_of("trainer.precision=32", "hardware=gpu_141gb"), A100, Rows(4096, 4096)) is None
    settings = settled("trainer.precision=32", "hardware=gpu_141gb")
    assert plan_run(settings).speed == ("not predicted: hardware.gpu=H200 has no tensor cores for this precision")


def test_time_and_price_of_a_run(tmp_path: Path) -> None:
    priced = ("hardware.price_per_hour=2.5", "trainer.devices=2", f"output_dir={tmp_path}")
    plan = plan_run(settled(*priced))
    assert plan.steps == 8_906
    assert plan.speed is not None
    step, tokens = re.match(r"([\d.]+) s a step of 16 rows of average length, ([\d,]+) tokens/s", plan.speed).groups()  # type: ignore[union-attr]
    assert float(step) * int(tokens.replace(",", "")) == pytest.approx(16 * 3700 // 4, rel=0.01)
    hours = float(step) * 8_906 / 3600
    shown, cost = re.match(r"([\d.]+) hours for 8,906 steps, cost ([\d.]+) at 2.5", plan.duration or "").groups()  # type: ignore[union-attr]
    assert float(shown) == pytest.approx(hours, rel=0.03)
    assert float(cost) == pytest.approx(2 * 2.5 * hours, rel=0.01)

    filled = plan_run(settled(*priced, "trainer.hours=48", "data=builtin"))
    steps, rows = re.match(r"about ([\d,]+) steps, or ([\d,]+) rows", filled.duration or "").groups()  # type: ignore[union-attr]
    assert int(rows.replace(",", "")) == 16 * int(steps.replace(",", ""))
    assert filled.speed is not None
    assert "of full length" in filled.speed  # nobody knows how long problems are before they are made
    assert "cost 240.00" in (filled.duration or "")


def test_what_a_run_has_measured_replaces_the_prediction(tmp_path: Path) -> None:
    lines = [{"step": step, "step_seconds": 2.0 if step > 1 else 90.0} for step in range(1, 8)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    plan = plan_run(settled(f"output_dir={tmp_path}"))
    assert plan.speed is not None
    assert plan.speed.startswith("2 s a step of 16 rows")
    assert "measured in the run's folder" in plan.speed
    assert (plan.duration or "").startswith("4.9 hours for 8,906 steps")


def test_a_gpu_nobody_knows_is_named(tmp_path: Path) -> None:
    settings = settled("hardware.gpu='NVIDIA T1000'", f"output_dir={tmp_path}")
    assert settings.model.architecture is not None
    assert forecast(settings, settings.model.architecture) is None
    assert "no data sheet is known of hardware.gpu=NVIDIA T1000, but of A100 40GB, A100 80GB PCIe, A100, H100" in (
        told(settings, None) or ""
    )
    assert told(settled("hardware=cpu"), None) is None


def test_a_price_below_zero_is_refused() -> None:
    from nemo_reasoning.config import load_settings
    from nemo_reasoning.config.train import validate
    from nemo_reasoning.errors import ConfigError

    settings = load_settings(composed("hardware=gpu_80gb", "hardware.price_per_hour=-1"), SftSettings)
    with pytest.raises(ConfigError, match=r"hardware.price_per_hour=-1.0: must be 0 or above"):
        validate(settings)
