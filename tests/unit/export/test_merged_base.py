"""What an adapter is merged onto is what training computed with, whatever dtype the base's files have."""

from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file
from tiny import save_tiny_llama

from nemo_reasoning.config.model import LORA_TARGETS
from nemo_reasoning.export.formats.merged import merged_weights
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.peft import nf4


def test_a_base_quantized_in_float32_is_not_rounded_to_the_dtype_of_its_files(tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", dtype=torch.bfloat16)
    name = "model.layers.0.mlp.down_proj.weight"
    trained = SimpleNamespace(shape=architecture_from_hf(base), changes=lambda: {name: lambda weight: weight})
    held = nf4.Nf4Base(targets=LORA_TARGETS, dtype="float32")
    merged = {key: weight for _, key, weight in merged_weights(trained, base=base, base_dtype="bfloat16", nf4=held)}

    original = load_file(base / "model.safetensors")[name].float()
    assert torch.equal(merged[name], nf4.dequantize(*nf4.quantize(original)))
