"""Train LoRA with transformers and PEFT on rows of token ids, in order, and print what came of it as JSON.

    python tests/gpu/gpu_peer.py MODEL ROWS STEPS ROWS_A_STEP DIM [checkpointing]

A loop as tutorials write it: bfloat16, the fastest attention that is installed, torch's fused AdamW, one row at a
time, the loss a mean over the supervised tokens of the step.
"""

import importlib.util
import inspect
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PretrainedConfig

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main(model: str, rows: str, steps: int, batch: int, dim: int, *, checkpointing: bool) -> None:
    """Train, and print the seconds and losses of the steps, the tokens of one, and the peak memory."""
    attention = "flash_attention_2" if DEVICE == "cuda" and importlib.util.find_spec("flash_attn") else "sdpa"
    dtype = "dtype" if "dtype" in inspect.signature(PretrainedConfig.__init__).parameters else "torch_dtype"
    options: dict[str, Any] = {dtype: torch.bfloat16, "attn_implementation": attention}
    base = AutoModelForCausalLM.from_pretrained(model, **options).to(DEVICE)
    if checkpointing:
        base.gradient_checkpointing_enable()
        base.enable_input_require_grads()
    config = LoraConfig(r=dim, lora_alpha=dim, target_modules=TARGETS, task_type="CAUSAL_LM")
    trained = get_peft_model(base, config).train()
    optimizer = torch.optim.AdamW(
        [weight for weight in trained.parameters() if weight.requires_grad], lr=1e-4, fused=DEVICE == "cuda"
    )
    lines = [json.loads(line) for line in Path(rows).read_text(encoding="utf-8").splitlines()]
    seconds, losses, tokens = [], [], 0
    for step in range(steps):
        began = time.perf_counter()
        chosen = [lines[(step * batch + number) % len(lines)] for number in range(batch)]
        losses.append(_step(trained, optimizer, chosen))
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        tokens = sum(len(row["input_ids"]) - 1 for row in chosen)
    peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None
    print(json.dumps({"seconds": seconds, "losses": losses, "tokens": tokens, "peak": peak, "attention": attention}))


def _step(model: Any, optimizer: torch.optim.Optimizer, rows: list[dict[str, list[int]]]) -> float:
    total, supervised = 0.0, sum(label >= 0 for row in rows for label in row["labels"][1:])
    for row in rows:
        ids, labels = (torch.tensor([row[key]], device=DEVICE) for key in ("input_ids", "labels"))
        logits = model(input_ids=ids[:, :-1]).logits.float()
        loss = torch.nn.functional.cross_entropy(logits[0], labels[0, 1:], reduction="sum") / supervised
        loss.backward()
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return total


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:6]), checkpointing=sys.argv[6:] == ["checkpointing"])
