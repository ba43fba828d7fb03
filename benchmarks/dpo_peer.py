"""Ask TRL's DPOTrainer for loss and gradient; run by dpo_parity.py in an environment of its own.

`dpo_peer.py MODEL ADAPTER PAIRS BETA` computes both for an adapter on pairs of token ids, in one batch, and prints one
JSON object.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

# Megatron's linears hold several of Hugging Face's, which share the first half of their adapter.
FUSED = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "fc1", "up_proj": "fc1"}


def main() -> None:
    """Compute and print."""
    model, adapter, file, beta = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
    pairs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as scratch:
        config = LoraConfig.from_pretrained(adapter)
        config.inference_mode = False
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            args=DPOConfig(output_dir=scratch, beta=beta, use_cpu=True, bf16=False, report_to="none", max_length=None),
            train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
            processing_class=AutoTokenizer.from_pretrained(model),
            peft_config=config,
        )
        set_peft_model_state_dict(trainer.model, load_file(adapter / "adapter_model.safetensors"))
        trainer.model.eval()  # no dropout
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(pairs))
        loss.backward()
    print(json.dumps({"loss": loss.item(), "grad_norm": fused_norm(trainer.model)}))


def fused_norm(model: torch.nn.Module) -> float:
    """Return the norm of the gradient of the adapter as Megatron's fused linears have it."""
    shared: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        part = next((part for part in FUSED if part in name and "lora_A" in name), None)
        key = name if part is None else name.replace(part, FUSED[part])
        shared[key] = parameter.grad if key not in shared else shared[key] + parameter.grad
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in shared.values()))


if __name__ == "__main__":
    main()
