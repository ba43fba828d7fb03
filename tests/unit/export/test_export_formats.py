"""What each format holds, and what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import save_tiny_llama
from trained_adapters import PEFT, make_adapter, run, save_checkpoint, scaled, trained_logits
from transformers import AutoTokenizer, LlamaForCausalLM

from nemo_reasoning.artifacts import file_sha256
from nemo_reasoning.config.export import EXPORT_FORMATS, refused_formats
from nemo_reasoning.errors import ExportError, VerificationError
from nemo_reasoning.export import verify
from nemo_reasoning.export.formats import FORMATS
from nemo_reasoning.export.formats.hf_peft import write_hf_peft
from nemo_reasoning.export.formats.merged import write_merged
from nemo_reasoning.export.formats.nemo import write_nemo_archive
from nemo_reasoning.export.serve_commands import BASE_PLACEHOLDER, max_lora_rank
from nemo_reasoning.export.weights import Adapter, read_adapter
from nemo_reasoning.models.hub import BaseModel
from nemo_reasoning.models.sizes import architecture_from_hf


def test_adapter_config(base: BaseModel, adapter: Adapter, tmp_path: Path) -> None:
    hub = replace(base, name="meta-llama/Llama-3.1-8B-Instruct", revision="abc")
    write_hf_peft(adapter, base=hub, out=tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == hub.name
    assert config["revision"] == "abc"
    assert (config["r"], config["lora_alpha"], config["use_rslora"], config["lora_dropout"]) == (
        6,
        8,
        True,
        0.05,
    )
    assert config["task_type"] == "CAUSAL_LM"
    assert config["target_modules"] == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]


def test_merged_stops_at_the_end_of_turn(base: BaseModel, adapter: Adapter, tmp_path: Path) -> None:
    run(base, adapter, tmp_path, formats=["merged"], reference_logits=None)
    end = AutoTokenizer.from_pretrained(base.path).convert_tokens_to_ids("<|im_end|>")  # type: ignore[no-untyped-call]
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "out" / "merged" / name).read_text())["eos_token_id"] == [end]


def test_merged_keeps_the_shards(base: BaseModel, adapter: Adapter, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    model = LlamaForCausalLM.from_pretrained(base.path)
    model.save_pretrained(sharded, max_shard_size="100KB")
    (tmp_path / "merged").mkdir()
    write_merged(adapter, base=sharded, base_dtype="float32", dtype="float32", end_of_turn=2, out=tmp_path / "merged")
    assert len(list((tmp_path / "merged").glob("*.safetensors"))) == len(list(sharded.glob("*.safetensors"))) > 1
    ids = [torch.arange(40)[None]]
    reference = trained_logits(base.path, adapter)(ids)
    loaded = verify.load_merged(tmp_path / "merged")
    assert verify.verify_logits(loaded, batches=ids, reference=reference, dtype="float32")["max_abs"] < 1e-4


def test_archive_through_the_independent_reader(base: BaseModel, adapter: Adapter, tmp_path: Path) -> None:
    pytest.importorskip("nemo")
    result = run(base, adapter, tmp_path, formats=["nemo"], reference_logits=None, require_verified=True)
    assert result.checks["nemo"]["weights"]["tensors"] == 2 * 7 * 2
    with pytest.raises(VerificationError, match="weights differ"):
        verify.verify_archive(tmp_path / "out" / "nemo" / "tiny.nemo", adapter=scaled(adapter, 1.001))


def test_archive_bytes_depend_on_the_adapter_only(adapter: Adapter, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_nemo_archive(adapter, out=tmp_path / name / f"{name}.nemo")
    write_nemo_archive(scaled(adapter, 2.0), out=tmp_path / "third.nemo")
    sums = [file_sha256(path) for path in sorted(tmp_path.rglob("*.nemo"))]
    assert len(set(sums)) == 2
    assert sums[0] == sums[1]


def test_archive_refuses_odd_head_sizes(adapter: Adapter) -> None:
    odd = replace(adapter.shape, head_dim=32)
    assert set(refused_formats(PEFT, odd)) == {"nemo"}
    assert "hidden_size / heads" in refused_formats(PEFT, odd)["nemo"]
    assert refused_formats(PEFT, adapter.shape) == {}
    assert set(FORMATS) == set(EXPORT_FORMATS)


def test_what_one_format_refuses_costs_no_other(adapter: Adapter, tmp_path: Path) -> None:
    odd = save_tiny_llama(tmp_path / "odd", head_dim=32)
    base, trained = BaseModel(name=str(odd), path=odd, revision="0"), make_adapter(architecture_from_hf(odd))
    result = run(base, trained, tmp_path, formats=None)
    assert (list(result.folders), list(result.refused)) == (["hf_peft", "merged"], ["nemo"])
    with pytest.raises(ExportError, match=r"not written: nemo: .*Written: hf_peft"):
        run(base, trained, tmp_path, formats=["nemo", "hf_peft"])
    assert (tmp_path / "out" / "manifest.json").is_file()


@pytest.mark.parametrize("shards", ["1GB", "100KB"])
def test_a_base_in_torchs_pickles_is_merged_into_safetensors(
    base: BaseModel, adapter: Adapter, tmp_path: Path, shards: str
) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(base.path, pickled)
    (pickled / "model.safetensors").unlink()
    model = LlamaForCausalLM.from_pretrained(base.path)
    model.save_pretrained(pickled, safe_serialization=False, max_shard_size=shards)
    result = run(replace(base, name=str(pickled), path=pickled), adapter, tmp_path, dtype="bfloat16")
    assert result.checks["merged"]["rounding"]["tensors"] > 20
    assert not list((tmp_path / "out" / "merged").glob("*.bin"))


def test_no_file_of_an_export_names_this_machine(base: BaseModel, adapter: Adapter, tmp_path: Path) -> None:
    run(base, adapter, tmp_path, formats=None)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path
    card = (tmp_path / "out" / "hf_peft" / "README.md").read_text()
    assert "base_model:" not in card
    assert BASE_PLACEHOLDER in card
    assert BASE_PLACEHOLDER not in (tmp_path / "out" / "merged" / "README.md").read_text()  # which needs no base
    config = json.loads((tmp_path / "out" / "hf_peft" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == BASE_PLACEHOLDER


def test_reading_a_checkpoint(adapter: Adapter, tmp_path: Path) -> None:
    attention_only = make_adapter(adapter.shape, replace(PEFT, target_modules=["linear_proj", "linear_qkv"]))
    found = read_adapter(save_checkpoint(attention_only, tmp_path / "a"), shape=adapter.shape, peft=attention_only.peft)
    for target, pair in attention_only.weights.items():
        for weight, read in zip(pair, found.weights[target], strict=True):
            assert torch.equal(weight, read)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rslora": False}, "a scale of 3.26599"),
        ({"dim": 8}, "dim=6"),
        ({"target_modules": ["linear_qkv"]}, "target_modules"),
    ],
)
def test_another_configuration_is_refused(
    base: BaseModel, adapter: Adapter, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        run(base, adapter, tmp_path, peft=replace(PEFT, **change))  # type: ignore[arg-type]


def test_another_base_is_refused(adapter: Adapter, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(adapter, tmp_path / "checkpoint")
    with pytest.raises(ExportError, match="the base model with peft.dim=6 needs"):
        read_adapter(checkpoint, shape=replace(adapter.shape, ffn_hidden_size=99), peft=PEFT)


def test_full_checkpoints_and_other_adapters_are_refused(adapter: Adapter, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not a NeMo adapter"):
        read_adapter(tmp_path, shape=adapter.shape, peft=PEFT)
    magnitude = "module.decoder.layers.mlp.linear_fc2.adapter.weight_magnitude"
    checkpoint = save_checkpoint(adapter, tmp_path / "dora", magnitude)
    with pytest.raises(ExportError, match="does not suit peft=lora"):
        read_adapter(checkpoint, shape=adapter.shape, peft=PEFT)
    other = save_checkpoint(adapter, tmp_path / "other", "module.decoder.layers.mlp.linear_fc2.adapter.gate")
    with pytest.raises(ExportError, match="adapter.gate; only LoRA and DoRA"):
        read_adapter(other, shape=adapter.shape, peft=PEFT)


@pytest.mark.parametrize("text", [None, "{}", "model_transform: null", "model_transform: {dim: 6}"])
def test_a_context_without_the_scale_is_refused(adapter: Adapter, tmp_path: Path, text: str | None) -> None:
    recorded = save_checkpoint(adapter, tmp_path) / "context" / "model.yaml"
    recorded.unlink()
    if text is not None:
        recorded.write_text(text)
    with pytest.raises(ExportError, match="does not record the LoRA"):
        read_adapter(tmp_path, shape=adapter.shape, peft=PEFT)


@pytest.mark.parametrize(("rank", "flag"), [(1, 8), (8, 8), (9, 16), (64, 64), (257, 320), (512, 512)])
def test_max_lora_rank(rank: int, flag: int) -> None:
    assert max_lora_rank(rank) == flag


def test_a_rank_above_vllms() -> None:
    with pytest.raises(ExportError, match="513"):
        max_lora_rank(513)
