"""Adapters as Hugging Face PEFT writes them, for transformers, vLLM and NIM."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from nemo_reasoning.artifacts import write_json
from nemo_reasoning.config.model import PeftScheme, PeftSettings
from nemo_reasoning.export.weights import HF_MODULES, Adapter
from nemo_reasoning.models.hub import BaseModel


def base_reference(base: BaseModel) -> str:
    """Return the name under which another program finds the base model: its hub id, or its directory."""
    local = base.name.startswith("pypi:") or Path(base.name).is_dir()
    return str(base.path) if local else base.name


def write_hf_peft(adapter: Adapter, *, base: BaseModel, out: Path) -> None:
    """Write adapter_model.safetensors, in the dtype trained, and adapter_config.json to the folder `out`."""
    tensors = {}
    for module, a, b in adapter.hf_pairs():
        # clone: safetensors refuses tensors that share memory, as q, k and v share their A
        tensors[f"base_model.model.model.{module}.lora_A.weight"] = a.clone()
        tensors[f"base_model.model.model.{module}.lora_B.weight"] = b.clone()
    for module, magnitude in adapter.hf_magnitudes().items():
        tensors[f"base_model.model.model.{module}.lora_magnitude_vector"] = magnitude.clone()
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    write_json(out / "adapter_config.json", _config(adapter.peft, base))


def _config(peft: PeftSettings, base: BaseModel) -> dict[str, Any]:
    reference = base_reference(base)
    return {
        "base_model_name_or_path": reference,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": int(peft.alpha) if peft.alpha == int(peft.alpha) else peft.alpha,
        "lora_dropout": peft.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": peft.dim,
        "revision": base.revision if reference == base.name else None,
        "target_modules": sorted(
            name.rpartition(".")[2] for target in peft.target_modules for name in HF_MODULES[target]
        ),
        "task_type": "CAUSAL_LM",
        "use_dora": peft.scheme is PeftScheme.dora,
        "use_rslora": peft.rslora,
    }
