"""Fine-tune SmolLM2 with LoRA and with QLoRA on the same batches, and compare bits and losses.

The rows are functions of Python's standard library, whose loss 50 steps do not bring near zero, or the
built-in problems, where they do.
"""

import argparse
import ast
import json
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nemo_reasoning.models.hub import PACKAGED_MODEL, fetch_base
from nemo_reasoning.models.sizes import architecture_from_hf, linear_shapes, nf4_bytes
from nemo_reasoning.training.loggers import read_metrics

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path("~/.cache/nemo_reasoning").expanduser()
STEPS, ROWS, TAIL = 50, 4, 10


def main() -> None:
    """Train twice, print a table, and last of all one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"5 steps instead of {STEPS}")
    parser.add_argument("--precision", default="bf16-mixed", help="bf16-mixed or 32")
    parser.add_argument("--data", default="code", choices=["code", "builtin"])
    chosen = parser.parse_args()
    steps = 5 if chosen.quick else STEPS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = _code(folder / "code.jsonl") if chosen.data == "code" else ["data.rows=400"]
        losses = {scheme: _train(scheme, chosen.precision, steps, rows, folder) for scheme in ("lora", "qlora")}
    gap = losses["qlora"][1] / losses["lora"][1] - 1
    result = {
        "bits_per_parameter": round(_bits(), 4),
        "loss_lora": round(losses["lora"][1], 4),
        "loss_qlora": round(losses["qlora"][1], 4),
        "loss_gap": round(gap, 4),
        "train_loss_lora": round(losses["lora"][0], 4),
        "train_loss_qlora": round(losses["qlora"][0], 4),
        "steps": steps,
        "precision": chosen.precision,
        "data": chosen.data,
    }
    table = Table("base", "bits a linear's weight", f"training loss, last {TAIL} steps", "validation loss")
    table.title = f"SmolLM2-135M, {steps} steps of {ROWS} rows of {chosen.data}, {chosen.precision}"
    bits = {"lora": 16.0 if chosen.precision == "bf16-mixed" else 32.0, "qlora": result["bits_per_parameter"]}
    for scheme, (train, validation) in losses.items():
        table.add_row(scheme, f"{bits[scheme]:.3f}", f"{train:.4f}", f"{validation:.4f}")
    Console().print(table)
    print(json.dumps(result))


def _code(path: Path) -> list[str]:
    """Write short functions of the standard library as chats; return the settings that read them."""
    found = [json.dumps({"messages": list(turns)}) for turns in _functions()][: ROWS * 100]
    path.write_text("\n".join(found) + "\n", encoding="utf-8")
    return ["data=jsonl", f"data.paths=[{path}]"]


def _functions() -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    for module in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = module.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            text = ast.get_source_segment(source, node) if isinstance(node, ast.FunctionDef) else None
            if text and 120 < len(text) < 360:
                asked = f"Write the function {node.name} of Python's module {module.stem}."
                yield {"role": "user", "content": asked}, {"role": "assistant", "content": text}


def _train(scheme: str, precision: str, steps: int, rows: list[str], folder: Path) -> tuple[float, float]:
    """Return the mean training loss of the last steps, and the validation loss after the last."""
    out = folder / scheme
    command = [
        *(sys.executable, str(ROOT / "recipes" / "sft_lora.py"), f"peft={scheme}", f"output_dir={out}"),
        *("hardware=cpu", f"trainer.precision={precision}", "trainer.seq_length=256", *rows),
        *(f"trainer.micro_batch_size={ROWS}", f"trainer.global_batch_size={ROWS}", f"trainer.max_steps={steps}"),
        *(f"trainer.eval_interval={steps}", "callbacks.samples_interval=0", "logger=none", f"cache_dir={CACHE}"),
    ]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    records = read_metrics(out / "metrics.jsonl")
    train = [float(record["loss"]) for record in records if "loss" in record]
    [validation] = [float(record["val_loss"]) for record in records if "val_loss" in record]
    return sum(train[-TAIL:]) / len(train[-TAIL:]), validation


def _bits() -> float:
    """Return the bits a weight of the quantized linears takes, scales included."""
    shape = architecture_from_hf(fetch_base(PACKAGED_MODEL, revision=None, cache_dir=CACHE).path)
    weights = [inputs * outputs for inputs, outputs in linear_shapes(shape).values()]
    return 8 * sum(map(nf4_bytes, weights)) / sum(weights)


if __name__ == "__main__":
    main()
