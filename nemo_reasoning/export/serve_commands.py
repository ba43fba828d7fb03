"""Commands that serve an export, and the model card that goes with it."""

import shlex
from pathlib import Path

from nemo_reasoning.config.model import PeftScheme, PeftSettings
from nemo_reasoning.errors import ExportError
from nemo_reasoning.export.tokenizer import TEMPLATE_FILE
from nemo_reasoning.reasoning.switch import THINK_SYSTEM

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_DOCKER = "docker run --rm --gpus all --shm-size 16g -p 8000:8000 -e NGC_API_KEY"


def max_lora_rank(dim: int) -> int:
    """Return the smallest --max-lora-rank of vLLM that holds a rank.

    Raises:
        ExportError: vLLM serves no adapter of this rank.
    """
    for rank in VLLM_RANKS:
        if rank >= dim:
            return rank
    raise ExportError(f"vLLM serves ranks up to {VLLM_RANKS[-1]}, the adapter has {dim}; export formats=[merged]")


def serve_commands(format_name: str, *, folder: Path, name: str, base: str, peft: PeftSettings) -> dict[str, str]:
    """Return the shell commands that serve one export, by server.

    The NIM image, which depends on the base model, is taken from $NIM_IMAGE.

    Args:
        format_name: "hf_peft", "nemo" or "merged".
        folder: What was exported.
        name: Under which clients ask for the model.
        base: Hub id or directory of the base model.
        peft: What was trained.
    """
    path = folder.resolve()
    where, template_file = shlex.quote(str(path)), shlex.quote(str(path.parent / TEMPLATE_FILE))
    mounted = f"-v {where}:/opt/adapters/{name}:ro -e NIM_PEFT_SOURCE=/opt/adapters"
    template = f"-v {template_file}:/opt/{TEMPLATE_FILE}:ro"
    if format_name == "merged":
        model = f"-v {where}:/opt/model:ro -e NIM_SERVED_MODEL_NAME={name}"
        return {
            "vllm": f"vllm serve {where} --served-model-name {name}",
            "nim 1.x": f"{_DOCKER} {model} -e NIM_FT_MODEL=/opt/model $NIM_IMAGE",
            "nim 2.x": f"{_DOCKER} {model} -e NIM_MODEL_PATH=/opt/model $NIM_IMAGE",
        }
    if peft.scheme is PeftScheme.dora:
        return {
            "this package": f"python recipes/serve.py checkpoint={where}",
            "vllm and nim": "# neither takes DoRA adapters: export formats=[merged]",
        }
    rank = max_lora_rank(peft.dim)
    nim1 = (
        f"{_DOCKER} {mounted} -e NIM_MAX_LORA_RANK={rank} {template} "
        f"-e NIM_CHAT_TEMPLATE=/opt/{TEMPLATE_FILE} $NIM_IMAGE"
    )
    if format_name == "nemo":
        return {"nim 1.x": nim1}
    flags = f"--enable-lora --max-lora-rank {rank}"
    return {
        "vllm": f"vllm serve {shlex.quote(base)} --tokenizer {where} {flags} --lora-modules {name}={where}",
        "nim 1.x": nim1,
        "nim 2.x": (
            f"{_DOCKER} {mounted} {template} $NIM_IMAGE nim-serve {flags} --chat-template /opt/{TEMPLATE_FILE}"
        ),
    }


def model_card(
    format_name: str, *, base: str, peft: PeftSettings, commands: dict[str, str], merge_onto: str | None = None
) -> str:
    """Return the README.md of an export; `merge_onto` is that of a QLoRA run, None of a LoRA run."""
    library = "peft" if format_name == "hf_peft" else "transformers"
    served = "\n\n".join(f"{server}:\n\n```sh\n{command}\n```" for server, command in commands.items())
    return f"""---
base_model: {base}
library_name: {library}
pipeline_tag: text-generation
tags: [{", ".join([*([] if peft.scheme is PeftScheme.none else [peft.scheme.value]), "reasoning", "nemo"])}]
---

# Reasoning with a switch

Fine-tuned from `{base}` with NVIDIA NeMo: {_trained(peft)}. The licences of the base model and of
the training data apply.{_qlora_note(format_name, merge_onto)}

| system message | answer | sampling |
|---|---|---|
| `{THINK_SYSTEM["on"]}` | `<think>` trace `</think>`, then the answer | temperature 0.6, top_p 0.95 |
| `{THINK_SYSTEM["off"]}` | the answer | greedy |

Use the chat template in this folder: it is the one of the training, and writes no date into the prompt.

## Serve

{served}
"""


def _trained(peft: PeftSettings) -> str:
    if peft.scheme is PeftScheme.none:
        return "every weight"
    name, scale = {PeftScheme.dora: "DoRA"}.get(peft.scheme, "LoRA"), "alpha / sqrt(r)" if peft.rslora else "alpha / r"
    return (
        f"{name} of rank {peft.dim}, alpha {peft.alpha:g}, scale {scale} =\n{peft.scale:g}, "
        f"on {', '.join(sorted(peft.target_modules))}"
    )


def _qlora_note(format_name: str, merge_onto: str | None) -> str:
    if merge_onto is None:
        return ""
    under = (
        f"These weights are the adapter merged onto the {merge_onto} base weights."
        if format_name == "merged"
        else "On the original base weights its logits differ a little from those of the training."
    )
    return f"\n\nTraining held the base in NF4 with double quantisation (QLoRA). {under}"
