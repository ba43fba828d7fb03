"""Commands that serve an export, and the model card that goes with it."""

from pathlib import Path

from nemo_reasoning.config.model import PeftScheme, PeftSettings
from nemo_reasoning.errors import ExportError
from nemo_reasoning.export.tokenizer import TEMPLATE_FILE
from nemo_reasoning.models.hub import BaseModel
from nemo_reasoning.reasoning.switch import THINK_SYSTEM, template_arguments

BASE_PLACEHOLDER = "set-this-to-the-base-model"
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
DOCKER = "docker run --rm --gpus all --shm-size 16g -p 8000:8000 -e NGC_API_KEY"


def max_lora_rank(dim: int) -> int:
    """Return the smallest --max-lora-rank of vLLM that holds a rank.

    Raises:
        ExportError: vLLM serves no adapter of this rank.
    """
    for rank in VLLM_RANKS:
        if rank >= dim:
            return rank
    raise ExportError(f"vLLM serves ranks up to {VLLM_RANKS[-1]}, the adapter has {dim}; export formats=[merged]")


def is_hub_id(name: str) -> bool:
    """Whether a base model's name finds it on any machine."""
    return not name.startswith(("pypi:", "/", "~", ".")) and "/" in name and not Path(name).expanduser().is_dir()


def base_reference(base: BaseModel) -> str:
    """Return the name under which readers elsewhere find the base model.

    That is its hub id, or the name of a packaged model. The place of a directory means nothing on another machine and
    shows who made the export: `BASE_PLACEHOLDER` stands for it, which whoever uses the export replaces.
    """
    return base.name if base.name.startswith("pypi:") or is_hub_id(base.name) else BASE_PLACEHOLDER


def nim_adapter(*, name: str, folder: str) -> str:
    """Return how NIM is started with a folder of adapters that holds one."""
    return f"{DOCKER} -v {folder}:/opt/adapters/{name}:ro -e NIM_PEFT_SOURCE=/opt/adapters"


def nim1_adapter(*, name: str, folder: str, template: str, rank: int) -> str:
    """Return NIM 1.x's command for an adapter."""
    return (
        f"{nim_adapter(name=name, folder=folder)} -e NIM_MAX_LORA_RANK={rank} -v {template}:/opt/{TEMPLATE_FILE}:ro "
        f"-e NIM_CHAT_TEMPLATE=/opt/{TEMPLATE_FILE} $NIM_IMAGE"
    )


def model_card(
    format_name: str,
    *,
    base: BaseModel,
    peft: PeftSettings,
    template: str,
    commands: dict[str, str],
    merge_onto: str | None = None,
) -> str:
    """Return the README.md of an export, which names nothing of the machine it was made on.

    Args:
        format_name: "hf_peft", "merged" or "gguf".
        base: The base model; a hub refuses a card whose `base_model` is no hub id, so it is left out then.
        peft: What was trained.
        template: Text of the chat template, which may have a switch of its own.
        commands: How to serve it from within its folder.
        merge_onto: Of a QLoRA run; None of a LoRA run.
    """
    library = {"hf_peft": "peft", "gguf": "gguf"}.get(format_name, "transformers")
    served = "\n\n".join(f"{server}:\n\n```sh\n{command}\n```" for server, command in commands.items())
    known = is_hub_id(base.name)
    reference = base_reference(base)
    named = "a local base model" if reference == BASE_PLACEHOLDER else f"`{reference}` (revision `{base.revision}`)"
    return f"""---
{f"base_model: {base.name}" + chr(10) if known else ""}library_name: {library}
pipeline_tag: text-generation
tags: [{", ".join([*([] if peft.scheme is PeftScheme.none else [peft.scheme.value]), "reasoning", "nemo"])}]
---

# Reasoning with a switch

Fine-tuned from {named} with NVIDIA NeMo: {_trained(peft)}. The licenses of the base model and of
the training data apply.{_qlora_note(format_name, merge_onto)}

| {_switch(template)["name"]} | answer | sampling |
|---|---|---|
| `{_switch(template)["on"]}` | `<think>` trace `</think>`, then the answer | temperature 0.6, top_p 0.95 |
| `{_switch(template)["off"]}` | the answer | greedy |

Use the chat template in this folder: it is the one of the training, and writes no date into the prompt.

## Serve

From within this folder{_base_note(served)}:

{served}
"""


def _switch(template: str) -> dict[str, str]:
    """Return what the switch is called, and how it is set on and off."""
    if arguments := template_arguments(template):
        name = arguments[0]
        return {"name": "`chat_template_kwargs`", "on": f'{{"{name}": true}}', "off": f'{{"{name}": false}}'}
    return {"name": "system message", "on": THINK_SYSTEM["on"], "off": THINK_SYSTEM["off"]}


def _base_note(served: str) -> str:
    if BASE_PLACEHOLDER not in served:
        return ""
    return (
        f"; put the directory of the base model in the place of `{BASE_PLACEHOLDER}`, here and in adapter_config.json "
        "where it stands there"
    )


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
        if format_name in ("merged", "gguf")
        else "On the original base weights its logits differ a little from those of the training."
    )
    return f"\n\nTraining held the base in NF4 with double quantization (QLoRA). {under}"
