"""What several weights give: averages of checkpoints, and adapters added up."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from short_runs import ADAPTER, exported_run, train_here

from nemo_reasoning.artifacts import read_manifest
from nemo_reasoning.config.model import Architecture
from nemo_reasoning.errors import CheckpointError, ConfigError, ExportError
from nemo_reasoning.export.combining import combination
from nemo_reasoning.export.from_run import adapter_folder, export_run
from nemo_reasoning.export.verify import load_hf_peft, nemo_reference_logits, verify_logits
from nemo_reasoning.export.weights import read_adapter
from nemo_reasoning.models.importer import convert
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.peft.hf_adapter import read_hf_adapter
from nemo_reasoning.peft.nf4 import Nf4Base
from nemo_reasoning.training.folder_lock import FolderLock
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import TrainingInputs

pytestmark = [
    pytest.mark.usefixtures("importing"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),  # NeMo's, at every start
]


@pytest.fixture(scope="module")
def first(inputs: TrainingInputs, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a finished run of two checkpoints, exported."""
    return exported_run(inputs, tmp_path_factory.mktemp("first"))


def shape_of(run: Run) -> Architecture:
    return architecture_from_hf(run.base.path)


def test_checkpoints_are_averaged(first: Run) -> None:
    assert len(first.checkpoints) == 2
    checks = export_run(first, average=2, dtype="float32").checks
    assert all(checks[name]["logits"]["relative_rms"] < 1e-4 for name in ("hf_peft", "merged"))
    assert read_manifest(first.path / "combined")["inputs"]["combined"]["averaged_steps"] == [1, 2]
    parts = [read_adapter(one.path, shape=shape_of(first), peft=first.settings.peft) for one in first.checkpoints]
    mean = load_file(first.path / "combined" / "hf_peft" / "adapter_model.safetensors")
    expected = (parts[0].weights["linear_fc2"][1][1] + parts[1].weights["linear_fc2"][1][1]) / 2
    torch.testing.assert_close(mean["base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"], expected)
    with pytest.raises(ExportError, match="average=3: .* holds 2 intact checkpoints; train with"):
        export_run(first, average=3)


def test_adapters_are_added_with_weights(inputs: TrainingInputs, first: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(first.export_dir / "hf_peft", other)
    tensors = {name: weight.roll(1, 0) for name, weight in load_file(other / "adapter_model.safetensors").items()}
    save_file(tensors, other / "adapter_model.safetensors")
    weights = {str(first.path): 0.75, str(other): -0.5}
    result = export_run(first, adapters=weights, formats=["hf_peft", "merged"], dtype="float32", out=tmp_path / "out")
    assert all(result.checks[name]["logits"]["relative_rms"] < 1e-4 for name in ("hf_peft", "merged"))
    recorded = read_manifest(tmp_path / "out")["inputs"]["combined"]["adapters"]
    assert recorded == {"other": -0.5}  # without its place
    base = load_file(inputs.tokenizer / "model.safetensors")
    merged = load_file(tmp_path / "out" / "merged" / "model.safetensors")
    name, expected = "model.layers.0.mlp.up_proj.weight", 0.0
    for folder, weight in ((first.export_dir / "hf_peft", 0.75), (other, -0.5)):
        found = read_hf_adapter(folder, shape=shape_of(first))
        expected = expected + weight * (found.change(name, base[name]) - base[name])
    torch.testing.assert_close(merged[name] - base[name], expected, atol=1e-5, rtol=1e-4)
    assert json.loads((tmp_path / "out" / "hf_peft" / "adapter_config.json").read_text())["r"] == 8


def test_an_average_on_a_quantized_base(inputs: TrainingInputs, first: Run, tmp_path: Path) -> None:
    """The proof has both: the base as training held it, and the averaged adapter."""
    export_run(first, average=2, formats=["hf_peft"], dtype="float32", out=tmp_path)
    nf4 = Nf4Base(tuple(first.settings.peft.target_modules), dtype="float32")
    exported = load_hf_peft(tmp_path / "hf_peft", base=first.base.path, base_dtype="float32", nf4=nf4)
    combined = combination(first, last=2, adapters={}, folder_of=Path, shape=shape_of(first))
    path, batches = first.checkpoints[-1].path, [torch.arange(10, 60)[None]]
    trained = nemo_reference_logits(path, dtype="float32", base=inputs.base, nf4=nf4, combined=combined)
    verify_logits(exported, batches=batches, reference=trained(batches), dtype="float32")


def test_adapters_are_refused_under_their_own_setting(first: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^adapters=/no/such is no directory"):
        export_run(first, adapters={"/no/such": 0.5})
    config = (first.path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace("scheme: lora", "scheme: none"))
    with pytest.raises(ConfigError, match="^adapters=.* was trained with peft=none; only LoRA is .* added"):
        export_run(first, adapters={str(tmp_path): 0.5})


def test_one_adapter_twice_and_weights_of_nothing_are_refused(first: Run, tmp_path: Path) -> None:
    run, own, other = str(first.path), str(first.export_dir / "hf_peft"), str(tmp_path / "other")
    shutil.copytree(own, other)
    (tmp_path / "link").symlink_to(other)
    one = "are one adapter; name it once"
    for adapters, message in (
        ({run: 0.7, f"{run}/": 0.3}, one),
        ({own: 0.5}, one),
        ({other: 0.5, str(tmp_path / "link"): 0.5}, one),
        ({run: 0.0}, "the weights add up to 0"),
        ({run: 0.1, other: -0.1}, "the weights add up to 0"),
        ({other: -1.0}, f"with the 1 of {run}, which they do not name, add up to 0"),
    ):
        with pytest.raises(ExportError, match=message):
            export_run(first, adapters=adapters, out=tmp_path / "out")
    with pytest.raises(ExportError, match="average=3"):  # before another run is exported, or anything imported
        export_run(first, adapters={"/no/such": 0.5}, average=3)


def test_an_adapter_that_calls_its_base_otherwise_is_told(first: Run, tmp_path: Path) -> None:
    other = shutil.copytree(first.export_dir / "hf_peft", tmp_path / "other")
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "some/base"}))
    told: list[str] = []
    export_run(
        first, adapters={str(other): 1.0}, formats=["hf_peft"], verified=False, out=tmp_path / "out", tell=told.append
    )
    assert told == [f"warning: adapters={other} calls its base some/base; here it is {first.base.name}"]


def test_one_process_exports_what_several_start_from(
    first: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(first.path, tmp_path / "other", ignore=shutil.ignore_patterns("export", "combined"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="is not exported yet.*run first: .*recipes/export.py checkpoint="):
        adapter_folder(str(other), first.base)
    assert adapter_folder(str(first.path), first.base)[0] == first.export_dir / "hf_peft"


def test_an_adapter_in_float32_on_a_base_in_bfloat16_is_what_was_trained(
    inputs: TrainingInputs, tmp_path: Path, nemo_cpu: None
) -> None:
    convert(inputs.tokenizer, tmp_path / "base", "bfloat16")
    settings = ("model.dtype=bfloat16", f"cache_dir={tmp_path}", "optim.lr=2e-2", "trainer.max_steps=1")
    run = Run.open(train_here(replace(inputs, base=tmp_path / "base"), tmp_path / "run", *ADAPTER, *settings))
    checks = export_run(run, formats=["hf_peft"], dtype="float32").checks
    assert checks["hf_peft"]["logits"]["relative_rms"] < 1e-5


def test_two_exports_at_once_do_not_write_to_one_folder(first: Run, tmp_path: Path) -> None:
    for held, out in ((tmp_path / "out", tmp_path / "out"), (first.export_dir, None), (first.path, None)):
        with FolderLock(held).held(), pytest.raises(CheckpointError, match=f"{held} is in use by process"):
            export_run(first, formats=["hf_peft"], out=out, verified=False)
