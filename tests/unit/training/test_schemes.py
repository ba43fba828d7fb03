"""DoRA and full fine-tuning train, resume exactly, and are exported as they were trained."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from short_runs import ADAPTER, losses, train_here
from torch.distributed.checkpoint.filesystem import FileSystemReader

from nemo_reasoning.errors import EngineError, ExportError
from nemo_reasoning.export import from_run
from nemo_reasoning.export.from_run import ensure_exported, export_run
from nemo_reasoning.hardware import MainMemory
from nemo_reasoning.inference.vllm.server import VllmServer
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import TrainingInputs

pytestmark = pytest.mark.slow


def test_dora_trains_and_is_exported_as_trained(
    inputs: TrainingInputs, tmp_path: Path, nemo_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_here(inputs, tmp_path, "peft=dora", *ADAPTER, "optim.lr=2e-2")
    found = losses(tmp_path)
    assert found[3] < found[0] - 0.1
    with monkeypatch.context() as small:
        small.setattr(from_run, "main_memory", lambda: MainMemory(total=2**30, free=2**30))
        with pytest.raises(ExportError, match=r"takes about 2\.0 GiB .* offers 1\.0; .*verify=false"):
            export_run(Run.open(tmp_path))
    told: list[str] = []
    monkeypatch.setattr(from_run, "main_memory", lambda: MainMemory(total=2**32, free=2**30))
    result = export_run(Run.open(tmp_path), tell=told.append)
    assert [line.partition(",")[2].partition(";")[0] for line in told] == [" and 1.0 are free"]
    assert result.checks["hf_peft"]["logits"]["relative_rms"] < 1e-5
    assert result.checks["merged"]["rounding"]["relative_rms"] < 1e-5
    weights = load_file(tmp_path / "export" / "hf_peft" / "adapter_model.safetensors")
    assert sum(key.endswith("lora_magnitude_vector") for key in weights) == 2 * 7
    assert json.loads((tmp_path / "export" / "hf_peft" / "adapter_config.json").read_text())["use_dora"] is True
    with pytest.raises(EngineError, match="DoRA"):
        VllmServer(
            Path(sys.executable),
            inputs.tokenizer,
            adapters={"a": tmp_path / "export" / "hf_peft"},
            args=[],
            cache_gb=None,
        )


def test_full_fine_tuning_resumes_exactly_and_is_exported_whole(
    inputs: TrainingInputs, tmp_path: Path, nemo_cpu: None
) -> None:
    """In bfloat16, where what is trained are float32 copies that only the optimiser's state holds."""
    full = ("peft=none", "optim.lr=2e-3", "trainer.precision=bf16-mixed")
    whole = losses(train_here(inputs, tmp_path / "whole", *full))
    run = train_here(inputs, tmp_path / "parts", *full, "trainer.max_steps=2")
    assert losses(train_here(inputs, run, *full)) == whole
    assert whole[3] < whole[0] - 0.1

    reader = FileSystemReader(Run.open(run).selected()[0].path / "weights")
    stored = reader.read_metadata().state_dict_metadata
    master = stored["optimizer.state.fp32_param.module.decoder.final_layernorm.weight"]
    assert master.properties.dtype is torch.float32
    model, adapter = ensure_exported(Run.open(run))
    assert adapter is None
    trained, base = (load_file(folder / "model.safetensors") for folder in (model, inputs.tokenizer))
    assert trained.keys() == base.keys()
    assert not any(torch.equal(trained[name].float(), base[name]) for name in base)
    assert (
        export_run(Run.open(run), formats=["merged"], out=tmp_path / "again").checks["merged"]["rounding"]["max_abs"]
        < 1e-4
    )
