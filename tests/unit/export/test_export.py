"""Each format gives the logits of the model that was trained, and a broken one is noticed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from trained_adapters import run, scaled, trained_logits
from transformers import LlamaForCausalLM

from nemo_reasoning.artifacts import read_manifest
from nemo_reasoning.config.model import PeftScheme
from nemo_reasoning.errors import ExportError, TemplateError, VerificationError
from nemo_reasoning.export import verify
from nemo_reasoning.export.formats.hf_peft import write_hf_peft
from nemo_reasoning.export.formats.merged import write_merged
from nemo_reasoning.export.weights import Adapter
from nemo_reasoning.models.hub import BaseModel


def test_hf_formats_compute_what_was_trained(base: BaseModel, adapter: Adapter, tmp_path: Path) -> None:
    result = run(base, adapter, tmp_path)
    for name in ("hf_peft", "merged"):
        assert result.checks[name]["logits"]["max_abs"] < 1e-4
    assert all(checks["tokenizer"].startswith("not verified: ") for checks in result.checks.values())
    manifest = read_manifest(tmp_path / "out")
    assert manifest["counts"]["checks"] == result.checks
    assert {"hf_peft/adapter_model.safetensors", "chat_template.jinja"} <= set(manifest["files"])
    assert "--max-lora-rank 8 " in result.commands["hf_peft"]["vllm"]
    assert {path.stat().st_mode & 0o777 for path in result.folders["merged"].iterdir()} == {0o644}


def test_bfloat16_merge_is_within_its_tolerance(base: BaseModel, adapter: Adapter, tmp_path: Path) -> None:
    result = run(base, adapter, tmp_path, formats=["merged"], dtype="bfloat16")
    assert result.checks["merged"]["logits"]["relative_rms"] > 0
    path = tmp_path / "out" / "merged" / "model.safetensors"
    weights = load_file(path)
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert result.checks["merged"]["rounding"]["tensors"] == len(weights)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_lost_module_does_not_hide_behind_rounding(
    base: BaseModel, adapter: Adapter, tmp_path: Path, dtype: str
) -> None:
    write_merged(adapter, base=base.path, base_dtype="float32", dtype=dtype, end_of_turn=2, out=tmp_path)
    weights, original = (load_file(folder / "model.safetensors") for folder in (tmp_path, base.path))
    lost = "model.layers.1.self_attn.k_proj.weight"
    save_file({**weights, lost: original[lost].to(weights[lost].dtype)}, tmp_path / "model.safetensors")
    ids = [torch.arange(60)[None]]
    reference = trained_logits(base.path, adapter)(ids)
    with pytest.raises(VerificationError, match="layers.1.self_attn.k_proj"):
        verify.verify_rounding(
            tmp_path,
            trained=adapter,
            base=base.path,
            base_dtype="float32",
            batches=ids,
            reference=reference,
            dtype=dtype,
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": ["onnx"]}, "formats="),
        ({"formats": ["gguf"]}, "no name in GGUF: its model is BPE with 0 merges"),
        ({"formats": ["gguf"], "gguf": ["q4_0"]}, "gguf=.*q4_0.*choose from f16"),
        ({"formats": []}, "formats="),
        ({"dtype": "int8"}, "dtype=int8"),
        ({"base_dtype": "int8"}, "base_dtype=int8"),
        ({"name": "a/b"}, "name="),
        ({"require_verified": True}, "no environment with transformers 5"),
        ({"require_verified": True, "tokenizer_python": Path("/nowhere")}, "/nowhere does not exist"),
        ({"require_verified": True, "reference_logits": None}, "no trained model"),
        ({"template": "{{ strftime_now('%d') }}{% generation %}{% endgeneration %}"}, "date"),
    ],
)
def test_requests_that_cannot_be_met(
    base: BaseModel, adapter: Adapter, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises((ExportError, TemplateError), match=message):
        run(base, adapter, tmp_path, **change)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format_name", ["hf_peft", "merged"])
def test_an_export_of_other_weights_does_not_appear(
    base: BaseModel, adapter: Adapter, tmp_path: Path, format_name: str
) -> None:
    other = trained_logits(base.path, scaled(adapter, 1.01))
    with pytest.raises(VerificationError, match="differ from the trained model"):
        run(base, adapter, tmp_path, formats=[format_name], reference_logits=other)
    assert not (tmp_path / "out" / format_name).exists()
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("module", ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
def test_a_corrupted_module_fails_verification(base: BaseModel, adapter: Adapter, tmp_path: Path, module: str) -> None:
    write_hf_peft(adapter, base=base, out=tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    key = next(name for name in weights if f"layers.0.{_room(module)}.{module}.lora_B" in name)
    weights[key] = weights[key].flip(0).contiguous()
    save_file(weights, tmp_path / "adapter_model.safetensors")
    ids = [torch.arange(60)[None]]
    model = verify.load_hf_peft(tmp_path, base=base.path, base_dtype="float32")
    reference = trained_logits(base.path, adapter)(ids)
    with pytest.raises(VerificationError):
        verify.verify_logits(model, batches=ids, reference=reference, dtype="float32")


def _room(module: str) -> str:
    return "mlp" if module in ("gate_proj", "up_proj", "down_proj") else "self_attn"


def test_logits_that_are_no_numbers_fail(base: BaseModel) -> None:
    ids = [torch.arange(10)[None]]
    model = verify.load_merged(base.path)
    with pytest.raises(VerificationError, match="nan"):
        verify.verify_logits(model, batches=ids, reference=[torch.full((1, 10, 264), torch.nan)], dtype="float32")


@pytest.mark.parametrize("format_name", ["hf_peft", "merged"])
def test_the_base_is_rounded_as_nemo_holds_it(
    base: BaseModel, adapter: Adapter, tmp_path: Path, format_name: str
) -> None:
    rounded = LlamaForCausalLM.from_pretrained(base.path).to(torch.bfloat16).float()
    rounded.save_pretrained(tmp_path / "rounded")
    request = {"formats": [format_name], "reference_logits": trained_logits(tmp_path / "rounded", adapter)}
    result = run(base, adapter, tmp_path, base_dtype="bfloat16", **request)
    assert result.checks[format_name]["logits"]["max_abs"] < 1e-4
    with pytest.raises(VerificationError, match="differ from the trained model"):
        run(base, adapter, tmp_path, base_dtype="float32", **request)


@pytest.mark.parametrize(
    ("scheme", "formats", "others"), [("dora", ["nemo"], "hf_peft,merged"), ("none", ["nemo", "hf_peft"], "merged")]
)
def test_formats_that_cannot_hold_what_was_trained(
    base: BaseModel, adapter: Adapter, tmp_path: Path, scheme: str, formats: list[str], others: str
) -> None:
    trained = replace(adapter.peft, scheme=PeftScheme[scheme])
    with pytest.raises(ExportError, match=rf"export formats=\[{others}\]"):
        run(base, adapter, tmp_path, peft=trained, formats=formats)


def test_dora_merges_as_peft_does(base: BaseModel, adapter: Adapter, tmp_path: Path) -> None:
    magnitudes = {name: 1 + torch.rand(up.shape[:2]) for name, (_, up) in adapter.weights.items()}
    dora = replace(adapter, peft=replace(adapter.peft, scheme=PeftScheme.dora), magnitudes=magnitudes)
    for folder in ("adapter", "merged"):
        (tmp_path / folder).mkdir()
    write_hf_peft(dora, base=base, out=tmp_path / "adapter")
    write_merged(dora, base=base.path, base_dtype="float32", dtype="float32", end_of_turn=2, out=tmp_path / "merged")
    ids = torch.arange(60)[None]
    with torch.no_grad():
        expected = verify.load_hf_peft(tmp_path / "adapter", base=base.path, base_dtype="float32")(ids).logits
        found = verify.load_merged(tmp_path / "merged")(ids).logits
        plain = trained_logits(base.path, adapter)([ids])[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, plain, atol=0.1)
