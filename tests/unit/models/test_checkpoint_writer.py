"""A base model is imported one weight at a time, into the checkpoint that NeMo's own import writes."""

import io
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import llama3_tokenizer, save_tiny_llama

from nemo_reasoning.errors import ModelSourceError

LLAMA31 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def nemo_import(hf: Path, out: Path, dtype: str) -> None:
    """Import as NeMo does, in a chosen dtype."""
    from nemo.collections.llm import LlamaModel
    from nemo.collections.llm.gpt.model.llama import HFLlamaImporter
    from nemo.lightning import teardown
    from transformers import AutoModelForCausalLM

    from nemo_reasoning.backend.runtime import without_leftovers

    importer = HFLlamaImporter(str(hf))
    config = importer.config
    config.params_dtype = getattr(torch, dtype)
    config.bf16, config.fp16 = dtype == "bfloat16", False
    target = LlamaModel(config, tokenizer=importer.tokenizer)
    source = AutoModelForCausalLM.from_pretrained(hf, torch_dtype=config.params_dtype)
    with without_leftovers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = importer.nemo_setup(target)
        importer.convert_state(source, target)
        importer.nemo_save(out, trainer)
        teardown(trainer, target)


def content(checkpoint: Path) -> dict[str, Any]:
    """Return everything in a checkpoint's weights: tensors, and the bytes of the layers' extra states."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = FileSystemReader(checkpoint / "weights")
    entries = reader.read_metadata().state_dict_metadata
    found: dict[str, Any] = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype) if hasattr(entry, "size") else io.BytesIO()
        for key, entry in entries.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(found, storage_reader=reader, no_dist=True)
    return {key: [one and one.getvalue() for one in it] if isinstance(it, list) else it for key, it in found.items()}


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("bfloat16", {"dtype": torch.float16, "tokenizer": llama3_tokenizer(), "rope_scaling": LLAMA31}),
        ("float32", {"tie_embeddings": True, "head_dim": 32}),
    ],
)
def test_it_is_the_checkpoint_that_nemo_writes(
    nemo_cpu: None, tmp_path: Path, dtype: str, options: dict[str, Any]
) -> None:
    from nemo_reasoning.models.importer import convert

    hf = save_tiny_llama(tmp_path / "hf", **options)
    nemo_import(hf, tmp_path / "nemo", dtype)

    convert(hf, tmp_path / "ours", dtype)

    ours, nemos = content(tmp_path / "ours"), content(tmp_path / "nemo")
    assert ours.keys() == nemos.keys()
    for key, tensor in nemos.items():
        if isinstance(tensor, torch.Tensor):
            assert (tensor.dtype, tensor.tolist()) == (ours[key].dtype, ours[key].tolist()), key
        else:
            assert (tensor, len(tensor)) == (ours[key], 1), key
    for name in ("weights/metadata.json", "context/model.yaml"):
        assert (tmp_path / "ours" / name).read_text() == (tmp_path / "nemo" / name).read_text()
    common, expected = (torch.load(tmp_path / one / "weights" / "common.pt") for one in ("ours", "nemo"))
    assert common == {key: expected[key] for key in common}


def test_a_missing_or_misshapen_weight_is_named(nemo_cpu: None, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from nemo_reasoning.models.importer import convert

    hf = save_tiny_llama(tmp_path / "hf")
    weights = load_file(hf / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    save_file({**weights, name: weights[name][:16].clone()}, hf / "model.safetensors")
    with pytest.raises(ModelSourceError, match=f"{name}.*cannot be .*linear_qkv.weight"):
        convert(hf, tmp_path / "misshapen", "float32")

    save_file({key: weight for key, weight in weights.items() if key != name}, hf / "model.safetensors")
    with pytest.raises(ModelSourceError, match=f"holds no {name}"):
        convert(hf, tmp_path / "missing", "float32")
