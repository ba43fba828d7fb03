"""Fine-tune on CPU as others do, or ask an adapter for its loss; run by train_cpu.py in an environment of its own.

`train_peer.py PROGRAM MODEL ROWS OUT` trains on token ids and labels, in the order of the file, and prints
one JSON object. PROGRAM is one of

- hf: the guide's script: transformers' Trainer with PEFT, rows padded to a multiple of 8 in micro-batches of 2;
- trl: TRL's SFTTrainer, one row at a time, so that none is padded: the fastest of its settings on a CPU;
- trl_flat: the same with four rows laid end to end;
- loss: no training; OUT is a trained adapter, whose loss per supervised token is printed.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

IGNORED_LABEL = -100
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "task_type": "CAUSAL_LM"}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SHARED = {
    "num_train_epochs": 1,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "bf16": True,
    "use_cpu": True,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "seed": 1234,
}


class Clock(TrainerCallback):
    """Keeps the seconds of every optimiser step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start."""
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self._began)


def main() -> None:
    """Train or measure."""
    program, model, rows_file, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    rows = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    if program == "loss":
        print(json.dumps({"loss": adapter_loss(model, out, rows)}))
        return
    clock = Clock()
    trainer = hf_trainer(model, rows, out, clock) if program == "hf" else trl_trainer(program, model, rows, out, clock)
    for name, weight in trainer.model.named_parameters():
        if "lora_A" in name:
            torch.nn.init.xavier_normal_(weight)  # as NeMo does, so that losses can be compared
    trainer.train()
    trainer.model.save_pretrained(out)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(json.dumps({"step_seconds": clock.seconds, "losses": losses}))


def hf_trainer(model: Path, rows: list[dict[str, list[int]]], out: Path, clock: Clock) -> Trainer:
    """Return the guide's trainer."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=8,
        train_sampling_strategy="sequential",
        **SHARED,
    )
    return Trainer(
        model=get_peft_model(base, LoraConfig(**LORA, target_modules=TARGETS)),
        args=arguments,
        train_dataset=_dataset(rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8),
        callbacks=[clock],
    )


def trl_trainer(program: str, model: Path, rows: list[dict[str, list[int]]], out: Path, clock: Clock) -> Trainer:
    """Return TRL's trainer, set up as fast as we found it to be on a CPU."""
    from trl import SFTConfig, SFTTrainer

    flat = program == "trl_flat"
    arguments = SFTConfig(
        output_dir=str(out),
        per_device_train_batch_size=4 if flat else 1,
        gradient_accumulation_steps=4 if flat else 16,
        train_sampling_strategy="sequential",
        max_length=None,
        padding_free=flat,
        model_init_kwargs={"dtype": torch.bfloat16},
        gradient_checkpointing=False,
        **SHARED,
    )
    return SFTTrainer(
        model=str(model),
        args=arguments,
        train_dataset=_dataset(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(**LORA, target_modules=TARGETS),
        callbacks=[clock],
    )


def _dataset(rows: list[dict[str, list[int]]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(rows)


@torch.no_grad()
def adapter_loss(model: Path, adapter: Path, rows: list[dict[str, list[int]]]) -> float:
    """Return the loss per supervised token, in float32, each row alone."""
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    trained = PeftModel.from_pretrained(base, adapter).eval()
    total, count = 0.0, 0
    for row in rows:
        logits = trained(torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"])[1:]
        total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORED_LABEL))
        count += int((labels != IGNORED_LABEL).sum())
    return total / count


if __name__ == "__main__":
    main()
