"""What becomes of finished adapters: trained further, merged into the base, averaged and added up."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from composing import composed
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from short_runs import ADAPTER, exported_run, short_settings, train_here
from tiny import save_tiny_llama
from transformers import AutoModelForCausalLM

from nemo_reasoning.artifacts import read_manifest
from nemo_reasoning.config import load_settings
from nemo_reasoning.config.adapter import AdapterConfig, adapter_config
from nemo_reasoning.config.evaluate import EvaluateSettings
from nemo_reasoning.config.train import validate
from nemo_reasoning.errors import CheckpointError, ConfigError, ExportError
from nemo_reasoning.evaluation import candidates as candidate_models
from nemo_reasoning.export.from_run import export_run
from nemo_reasoning.export.starting_point import starting_point, write_merged_base
from nemo_reasoning.export.verify import load_hf_peft
from nemo_reasoning.inference.checkpoints import ModelFiles
from nemo_reasoning.models.hub import BaseModel, fetch_base, weights_fingerprint
from nemo_reasoning.models.importer import convert
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.peft.hf_adapter import HfAdapter, read_hf_adapter
from nemo_reasoning.training.checkpoints import seal
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import TrainingInputs

pytestmark = [
    pytest.mark.usefixtures("importing"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),  # NeMo's, at every start
]
IDS = torch.arange(10, 60)[None]


@pytest.fixture(scope="module")
def first(inputs: TrainingInputs, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a finished first stage."""
    return exported_run(inputs, tmp_path_factory.mktemp("first"))


def base_of(inputs: TrainingInputs, cache: Path) -> BaseModel:
    return fetch_base(str(inputs.tokenizer), revision=None, cache_dir=cache)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(IDS).logits
    return found


def stages_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> dict[str, ModelFiles]:
    """Return what an evaluation of a run measures, by name and in order."""
    monkeypatch.setattr(candidate_models, "_load", lambda files, settings: files)
    settings = load_settings(composed(f"checkpoint={run.path}", root="evaluate"), EvaluateSettings)
    found = candidate_models.candidates(settings)
    assert len({one.identity for one in found}) == len(found)
    return {one.name: one.load() for one in found}  # type: ignore[misc]


def test_an_adapter_is_trained_further(
    inputs: TrainingInputs, first: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rate that changes next to nothing what comes out is what went in."""
    chosen = (f"peft.start_from={first.path}", "optim.lr=1e-9", "trainer.max_steps=1", "trainer.eval_interval=1")
    settings = short_settings(inputs.tokenizer, tmp_path, *chosen)
    validate(settings)
    assert (settings.peft.dim, settings.peft.alpha) == (4, 8)  # the adapter's own
    base, start = starting_point(Run.start(settings), base_of(inputs, tmp_path), tell=lambda line: None)
    assert base.path == inputs.tokenizer
    run = Run.open(train_here(replace(inputs, start=start.weights, chain=start.chain), tmp_path, *chosen))
    export_run(run, formats=["hf_peft"])
    after, before = (load_file(one.export_dir / "hf_peft" / "adapter_model.safetensors") for one in (run, first))
    assert any(weight.abs().max() > 1e-3 for name, weight in before.items() if "lora_B" in name)
    for name in before:
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)
    recorded = read_manifest(run.export_dir)["inputs"]["started_from"]
    assert [entry["adapter"] for entry in recorded] == [first.path.name]  # an export names no place
    assert [entry["start"] for entry in recorded] == ["adapter"] == [entry["start"] for entry in run.identity.start]
    stages = stages_of(run, monkeypatch)
    assert stages["base"].adapter is None
    assert stages["start"] == replace(stages["base"], adapter=first.export_dir / "hf_peft")
    assert stages["trained"].adapter == run.export_dir / "hf_peft"
    further, chain = starting_point_of(run.path, inputs, tmp_path / "third")
    assert further == base
    assert [entry["adapter"] for entry in chain] == [str(first.path), str(run.path)]


def starting_point_of(source: Path, inputs: TrainingInputs, out: Path) -> tuple[BaseModel, list[dict[str, str]]]:
    run = Run.start(short_settings(inputs.tokenizer, out, f"peft.start_from={source}"))
    base, start = starting_point(run, base_of(inputs, out), tell=lambda line: None)
    return base, start.chain


def test_an_adapter_is_merged_under_a_fresh_one(
    inputs: TrainingInputs, first: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = (f"peft.start_from={first.path}", "peft.start=merged", *ADAPTER, "peft.dim=2", "trainer.max_steps=1")
    settings = short_settings(inputs.tokenizer, tmp_path / "run", *chosen)
    validate(settings)
    run = Run.start(settings)
    base, start = starting_point(run, base_of(inputs, tmp_path), tell=lambda line: None)
    assert start.weights is None
    expected = logits(load_hf_peft(first.export_dir / "hf_peft", base=inputs.tokenizer, base_dtype="float32"))
    merged = AutoModelForCausalLM.from_pretrained(base.path).eval()
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)

    convert(base.path, tmp_path / "nemo", "float32")
    stage = replace(inputs, base=tmp_path / "nemo", tokenizer=base.path, chain=start.chain)
    run = Run.open(train_here(stage, tmp_path / "run", *chosen, f"model.source={inputs.tokenizer}"))
    assert run.base.path == base.path
    assert export_run(run, formats=["hf_peft"]).checks["hf_peft"]["logits"]["relative_rms"] < 1e-4
    stages = stages_of(run, monkeypatch)
    assert [(name, files.base) for name, files in stages.items()] == [
        *(("base", inputs.tokenizer), ("start", base.path), ("trained", base.path))
    ]
    with pytest.raises(CheckpointError, match="was trained on .*base, other weights.*model.source="):
        starting_point_of(run.path, inputs, tmp_path / "third")


@pytest.fixture
def foreign(inputs: TrainingInputs, tmp_path: Path) -> Path:
    """Return an adapter as PEFT makes it, on two of a layer's linears, with an A of its own for each."""
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(inputs.tokenizer), config).save_pretrained(tmp_path / "foreign")
    return tmp_path / "foreign"


def test_anyones_adapter_is_merged(inputs: TrainingInputs, foreign: Path, tmp_path: Path) -> None:
    run = Run.start(short_settings(inputs.tokenizer, tmp_path, f"peft.start_from={foreign}", "peft.start=merged"))
    base, _ = starting_point(run, base_of(inputs, tmp_path), tell=lambda line: None)
    expected = logits(load_hf_peft(foreign, base=inputs.tokenizer, base_dtype="float32"))
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(base.path).eval()), expected)
    with pytest.raises(ConfigError, match="does not adapt self_attn.k_proj.*peft.start=merged"):
        starting_point_of(foreign, inputs, tmp_path / "adapter")


def test_a_base_merged_with_another_adapter_is_made_anew(inputs: TrainingInputs, foreign: Path, tmp_path: Path) -> None:
    """Until a checkpoint was trained on it, and then again with restart=true."""
    other = Path(shutil.copytree(foreign, tmp_path / "other"))
    weights(lambda tensors: tensors.update({name: 2 * tensor for name, tensor in tensors.items()}))(other)

    def merged(adapter: Path, *overrides: str) -> str:
        chosen = (f"peft.start_from={adapter}", "peft.start=merged", *overrides)
        run = Run.start(short_settings(inputs.tokenizer, tmp_path / "run", *chosen))
        starting_point(run, base_of(inputs, tmp_path), tell=lambda line: None)
        return weights_fingerprint(run.merged_base)

    of_foreign, of_other = merged(foreign), merged(other)
    assert of_foreign != of_other
    assert merged(foreign) == of_foreign
    seal_empty(tmp_path / "run" / "checkpoints" / "step=1-last")
    assert merged(other, "restart=true") == of_other
    base = tmp_path / "run" / "base"
    (base / "made_from.json").unlink()  # of an earlier version
    kept = base.stat().st_ino
    assert (merged(other), base.stat().st_ino) == (of_other, kept)


def seal_empty(checkpoint: Path) -> None:
    (checkpoint / "weights").mkdir(parents=True)
    seal(checkpoint, step=1)


Edit = Callable[[Path], object]


def config(**changes: Any) -> Edit:
    def edit(folder: Path) -> None:
        file = folder / "adapter_config.json"
        adapter_config.cache_clear()
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return edit


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Edit:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return edit


def pickled(content: Any) -> Edit:
    def edit(folder: Path) -> None:
        (folder / "adapter_model.safetensors").unlink()
        torch.save(content, folder / "adapter_model.bin")

    return edit


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (config(peft_type="IA3"), "is a IA3 adapter"),
        (config(use_dora=True), "has use_dora=True"),
        (config(bias="lora_only"), "has bias='lora_only'"),
        (config(modules_to_save=["lm_head"]), "has modules_to_save="),
        (config(rank_pattern={"q_proj": 8}), "has rank_pattern="),
        (config(target_modules=["q_proj", "lm_head"]), "adapts lm_head"),
        (config(target_modules="[broken"), "has target_modules="),
        (config(init_lora_weights="pissa_niter_4"), "init_lora_weights='pissa_niter_4'"),
        (config(r=0), "has r=0"),
        (config(lora_alpha="16"), "has lora_alpha='16'"),
        (config(r=4), r"is {'A': \(3, 64\).*needs"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "neither a run nor a PEFT directory"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x"), "is damaged"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "neither adapter_model.safetensors nor"),
        (weights(lambda tensors: tensors.pop(FIRST)), r"is {'B'"),
        (weights(lambda tensors: tensors[FIRST].fill_(torch.nan)), "not finite"),
        (weights(lambda tensors: tensors.update({"embed.weight": torch.zeros(1)})), "holds embed.weight"),
        (pickled({FIRST: print}), "more than tensors"),
        (pickled([torch.zeros(1)]), "more than tensors"),
    ],
)
def test_a_bad_adapter_is_refused_by_name(inputs: TrainingInputs, foreign: Path, edit: Edit, message: str) -> None:
    adapter_config.cache_clear()
    edit(foreign)
    with pytest.raises(ConfigError, match=message):
        read_hf_adapter(foreign, shape=architecture_from_hf(inputs.tokenizer))


def test_one_of_another_base_is_refused(foreign: Path, tmp_path: Path) -> None:
    other = save_tiny_llama(tmp_path / "other", head_dim=8)
    with pytest.raises(ConfigError, match="choose the model that it was trained on"):
        read_hf_adapter(foreign, shape=architecture_from_hf(other))


def test_weights_alone_are_read_from_a_pickle(inputs: TrainingInputs, foreign: Path) -> None:
    shape = architecture_from_hf(inputs.tokenizer)
    before = read_hf_adapter(foreign, shape=shape)
    pickled(load_file(foreign / "adapter_model.safetensors"))(foreign)
    after = read_hf_adapter(foreign, shape=shape)
    assert all(torch.equal(after.weights[key][0], pair[0]) for key, pair in before.weights.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("peft.dim=8",), "peft.dim=8, but the adapter .* has 4; leave it out"),
        (("peft=dora",), "peft=dora: only LoRA"),
        (("peft=none", "peft.start=adapter"), "peft=none: set peft.start=merged"),
    ],
)
def test_settings_that_contradict_the_adapter(
    inputs: TrainingInputs, first: Run, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(short_settings(inputs.tokenizer, tmp_path, f"peft.start_from={first.path}", *overrides))


def test_what_does_not_add_up_is_refused(first: Run, foreign: Path) -> None:
    with pytest.raises(ExportError, match="adapts linear_qkv, and .*; adapters of the same linears add up"):
        export_run(first, adapters={str(foreign): 1.0})


def test_a_tied_base_in_a_pickle_is_merged_without_its_head(tmp_path: Path) -> None:
    """Head and embedding lie in the same memory, which safetensors refuses to write."""
    base, out = save_tiny_llama(tmp_path / "tied", tie_embeddings=True), tmp_path / "out"
    model = AutoModelForCausalLM.from_pretrained(base)
    (base / "model.safetensors").unlink()
    torch.save(model.state_dict(), base / "pytorch_model.bin")
    out.mkdir()
    config = AdapterConfig(dim=1, alpha=1, rslora=False, modules=frozenset(), base=None)
    write_merged_base(HfAdapter(config, base, architecture_from_hf(base), {}), base=base, out=out)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(out)), logits(model))
