"""Random adapters, their checkpoints, and the model they stand for computed another way."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save
from transformers import AutoModelForCausalLM

from nemo_reasoning.config.model import Architecture, PeftScheme, PeftSettings, Start
from nemo_reasoning.data.chat import load_template
from nemo_reasoning.export import verify
from nemo_reasoning.export.export import ExportResult, export
from nemo_reasoning.export.weights import Adapter
from nemo_reasoning.models.hub import BaseModel
from nemo_reasoning.models.sizes import linear_shapes
from nemo_reasoning.training.checkpoints import Checkpoint

ALL = ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]
PEFT = PeftSettings(
    PeftScheme.lora, dim=6, alpha=8, dropout=0.05, target_modules=ALL, rslora=True, start_from=None, start=Start.adapter
)
KEYS = {
    "linear_qkv": "self_attention",
    "linear_proj": "self_attention",
    "linear_fc1": "mlp",
    "linear_fc2": "mlp",
}


def make_adapter(shape: Architecture, peft: PeftSettings = PEFT) -> Adapter:
    """Return random weights in Megatron's layout, large enough to change the logits a lot."""
    generator = torch.Generator().manual_seed(3)
    weights = {}
    for target in peft.target_modules:
        inputs, outputs = linear_shapes(shape)[target]
        linear_in = torch.randn(shape.num_layers, peft.dim, inputs, generator=generator)
        linear_out = torch.randn(shape.num_layers, outputs, peft.dim, generator=generator)
        weights[target] = (linear_in * 0.1, linear_out * 0.1)
    return Adapter(shape, peft, weights)


def save_checkpoint(adapter: Adapter, folder: Path, *extra: str) -> Path:
    """Write the adapter as NeMo's training leaves it, with `extra` weights of no meaning."""
    state = {"optimizer.state.exp_avg.module.decoder.final_layernorm.weight": torch.zeros(3)}
    for target, pair in adapter.weights.items():
        for name, weight in zip(("linear_in", "linear_out"), pair, strict=True):
            state[f"module.decoder.layers.{KEYS[target]}.{target}.adapter.{name}.weight"] = weight
    state.update(dict.fromkeys(extra, torch.zeros(3)))
    writer = FileSystemWriter(folder / "weights")
    with pytest.warns(UserWarning, match="torch.distributed is"):
        save(state, storage_writer=writer, no_dist=True)
    (folder / "weights" / "adapter_metadata.json").write_text("{}")
    (folder / "context").mkdir()
    peft = adapter.peft
    (folder / "context" / "model.yaml").write_text(
        f"model_transform:\n  dim: {peft.dim}\n  alpha: {peft.scale * peft.dim}\n"
    )
    return folder


def trained_logits(base: Path, adapter: Adapter) -> verify.ReferenceLogits:
    """Return the trained model, its deltas placed row by row as Megatron orders them."""
    model, shape = AutoModelForCausalLM.from_pretrained(base).eval(), adapter.shape
    size, per_group = shape.head_dim, shape.num_attention_heads // shape.num_query_groups
    for number, layer in enumerate(model.model.layers):
        delta = {
            target: adapter.peft.scale * (pair[1][number] @ pair[0][number]) for target, pair in adapter.weights.items()
        }
        heads = iter(delta["linear_qkv"].split(size))  # type: ignore[no-untyped-call]
        attention, mlp = layer.self_attn, layer.mlp
        for group in range(shape.num_query_groups):
            for query in range(group * per_group, (group + 1) * per_group):
                attention.q_proj.weight.data[query * size : (query + 1) * size] += next(heads)
            attention.k_proj.weight.data[group * size : (group + 1) * size] += next(heads)
            attention.v_proj.weight.data[group * size : (group + 1) * size] += next(heads)
        attention.o_proj.weight.data += delta["linear_proj"]
        mlp.gate_proj.weight.data += delta["linear_fc1"][: shape.ffn_hidden_size]
        mlp.up_proj.weight.data += delta["linear_fc1"][shape.ffn_hidden_size :]
        mlp.down_proj.weight.data += delta["linear_fc2"]

    @torch.no_grad()
    def logits(batches: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [model(ids).logits for ids in batches]

    return logits


def run(base: BaseModel, adapter: Adapter, tmp_path: Path, **changes: object) -> ExportResult:
    """Export a checkpoint of `adapter` to tmp_path/out, with some arguments changed."""
    checkpoint = tmp_path / "checkpoint"
    if not checkpoint.exists():
        save_checkpoint(adapter, checkpoint)
    arguments: dict[str, object] = {
        "checkpoint": Checkpoint(checkpoint, step=3, loss=None),
        "base": base,
        "template": load_template("chatml"),
        "peft": adapter.peft,
        "formats": ["hf_peft", "merged"],
        "out": tmp_path / "out",
        "name": "tiny",
        "base_dtype": "float32",
        "dtype": "float32",
        "reference_logits": trained_logits(base.path, adapter),
    }
    return export(**(arguments | changes))  # type: ignore[arg-type]


def scaled(adapter: Adapter, factor: float) -> Adapter:
    """Return the adapter with `linear_out` multiplied."""
    weights = {target: (a, b * factor) for target, (a, b) in adapter.weights.items()}
    return replace(adapter, weights=weights)
