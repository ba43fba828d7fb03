"""Adapters as `.nemo` archives of NeMo 1.x, which NIM 1.x loads."""

import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from nemo_reasoning.artifacts import atomic_path
from nemo_reasoning.config.model import PeftSettings
from nemo_reasoning.export import verify
from nemo_reasoning.export.formats.base import (
    NOT_VERIFIED,
    ExportFormat,
    ExportJob,
    no_archive_reader,
)
from nemo_reasoning.export.serve_commands import max_lora_rank, nim1_adapter
from nemo_reasoning.export.weights import Adapter

_STEMS = {
    "linear_qkv": "self_attention.adapter_layer.lora_kqv_adapter",
    "linear_proj": "self_attention.adapter_layer.lora_dense_attention_adapter",
    "linear_fc1": "mlp.adapter_layer.lora_hto4h_adapter",
    "linear_fc2": "mlp.adapter_layer.lora_4htoh_adapter",
}
_NEMO1_TARGETS = {
    "linear_qkv": "attention_qkv",
    "linear_proj": "attention_dense",
    "linear_fc1": "mlp_fc1",
    "linear_fc2": "mlp_fc2",
}


class NemoArchive(ExportFormat):
    """An adapter for NIM 1.x."""

    name, has_tokenizer = "nemo", False

    def write(self, job: ExportJob, folder: Path) -> None:
        """Write one archive."""
        write_nemo_archive(job.adapter, out=folder / f"{job.name}.nemo")

    def verify(self, job: ExportJob, folder: Path) -> dict[str, Any]:
        """Read every weight back with NeMo's own converter."""
        if reason := no_archive_reader():
            return {"weights": f"{NOT_VERIFIED}: {reason}"}
        return {"weights": verify.verify_archive(folder / f"{job.name}.nemo", adapter=job.adapter)}

    def serve_commands(
        self, *, name: str, base: str, peft: PeftSettings, folder: str, template: str, files: Sequence[str]
    ) -> dict[str, str]:
        """Return NIM 1.x's command."""
        return {"nim 1.x": nim1_adapter(name=name, folder=folder, template=template, rank=max_lora_rank(peft.dim))}

    def unverifiable(self, job_reference: bool, tokenizer_python: Path | None) -> str | None:
        """Ask for NeMo alone."""
        reason = no_archive_reader()
        return f"{reason}; install it, or verify=false" if reason else None


def write_nemo_archive(adapter: Adapter, *, out: Path) -> None:
    """Write the archive `out`: an uncompressed tar of model_config.yaml and model_weights.ckpt.

    The scale is folded into linear_out and alpha is the rank, so readers that ignore alpha agree
    with those that apply alpha / rank. Weights are float32, because the product with the scale
    is not exact in bfloat16. The same adapter gives the same bytes.
    """
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        # torch.save puts the file's own name into the file, so it must not be a random one
        config, weights = Path(name) / "model_config.yaml", Path(name) / "model_weights.ckpt"
        config.write_text(yaml.safe_dump(_config(adapter), sort_keys=True), encoding="utf-8")
        torch.save(_state_dict(adapter), weights)
        with (
            atomic_path(out) as temporary,
            tarfile.open(temporary, "w:", format=tarfile.GNU_FORMAT) as archive,
        ):
            for file in (config, weights):
                archive.add(file, arcname=f"./{file.name}", filter=_without_origin)


def _without_origin(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def _state_dict(adapter: Adapter) -> dict[str, torch.Tensor]:
    state = {}
    for target, (linear_in, linear_out) in adapter.weights.items():
        for layer, (a, b) in enumerate(zip(linear_in, linear_out, strict=True)):
            stem = f"model.decoder.layers.{layer}.{_STEMS[target]}"
            # clone: torch.save writes the whole storage of a view
            state[f"{stem}.linear_in.weight"] = a.float().clone()
            state[f"{stem}.linear_out.weight"] = b.float() * adapter.peft.scale
    return state


def _config(adapter: Adapter) -> dict[str, Any]:
    shape, peft = adapter.shape, adapter.peft
    return {
        "hidden_size": shape.hidden_size,
        "num_attention_heads": shape.num_attention_heads,
        "num_query_groups": shape.num_query_groups,
        "kv_channels": shape.head_dim,
        "ffn_hidden_size": shape.ffn_hidden_size,
        "num_layers": shape.num_layers,
        "tensor_model_parallel_size": 1,
        "pipeline_model_parallel_size": 1,
        "peft": {
            "peft_scheme": "lora",
            "lora_tuning": {
                "adapter_dim": peft.dim,
                "adapter_dropout": peft.dropout,
                "alpha": peft.dim,
                "target_modules": [_NEMO1_TARGETS[target] for target in adapter.weights],
                "variant": "nemo",
            },
        },
    }
