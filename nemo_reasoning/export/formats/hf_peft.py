"""Adapters as Hugging Face PEFT writes them, for transformers, vLLM and NIM."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from nemo_reasoning.artifacts import write_json
from nemo_reasoning.config.model import PeftScheme, PeftSettings
from nemo_reasoning.export import verify
from nemo_reasoning.export.formats.base import NOT_VERIFIED, ExportFormat, ExportJob
from nemo_reasoning.export.serve_commands import base_reference, is_hub_id, max_lora_rank, nim1_adapter, nim_adapter
from nemo_reasoning.export.tokenizer import TEMPLATE_FILE, write_tokenizer
from nemo_reasoning.export.weights import Adapter, hf_modules
from nemo_reasoning.models.hub import BaseModel


class HfPeft(ExportFormat):
    """An adapter beside its base model."""

    name, has_tokenizer = "hf_peft", True

    def write(self, job: ExportJob, folder: Path) -> None:
        """Write tokenizer, weights and configuration."""
        write_tokenizer(job.formatter, out=folder)
        write_hf_peft(job.adapter, base=job.base, out=folder)

    def verify(self, job: ExportJob, folder: Path) -> dict[str, Any]:
        """Compare logits in float32, and the tokenizer."""
        if job.reference is None:
            logits: Any = f"{NOT_VERIFIED}: no trained model was given to compare with"
        else:
            nf4 = job.nf4(self.name)
            model = verify.load_hf_peft(folder, base=job.base.path, base_dtype=job.base_dtype, nf4=nf4)
            logits = verify.verify_logits(model, batches=job.batches, reference=job.reference, dtype="float32")
        return {"logits": logits, "tokenizer": job.verify_tokenizer(folder)}

    def serve_commands(
        self, *, name: str, base: str, peft: PeftSettings, folder: str, template: str, files: Sequence[str]
    ) -> dict[str, str]:
        """Return commands for vLLM and both generations of NIM; DoRA is served by this package alone."""
        if peft.scheme is PeftScheme.dora:
            return {
                "this package": f"python recipes/serve.py checkpoint={folder}",
                "vllm and nim": "# neither takes DoRA adapters: export formats=[merged]",
            }
        rank = max_lora_rank(peft.dim)
        flags = f"--enable-lora --max-lora-rank {rank}"
        return {
            "vllm": f"vllm serve {base} --tokenizer {folder} {flags} --lora-modules {name}={folder}",
            "nim 1.x": nim1_adapter(name=name, folder=folder, template=template, rank=rank),
            "nim 2.x": (
                f"{nim_adapter(name=name, folder=folder)} -e NIM_MODEL_PROFILE=$NIM_LORA_PROFILE "
                f"-v {template}:/opt/{TEMPLATE_FILE}:ro $NIM_IMAGE "
                f"nim-serve {flags} --chat-template /opt/{TEMPLATE_FILE}"
            ),
        }


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
    write_json(out / "adapter_config.json", _config(adapter, base))


def _config(adapter: Adapter, base: BaseModel) -> dict[str, Any]:
    peft, modules = adapter.peft, hf_modules(adapter.shape)
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
        "revision": base.revision if is_hub_id(base.name) else None,
        "target_modules": sorted(name.rpartition(".")[2] for target in peft.target_modules for name in modules[target]),
        "task_type": "CAUSAL_LM",
        "use_dora": peft.scheme is PeftScheme.dora,
        "use_rslora": peft.rslora,
    }
