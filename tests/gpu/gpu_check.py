"""Measure on a GPU what no other test can, and write it into docs/results/gpu.md; `make gpu-check` runs it.

Trains Llama 3 8B with random weights, 20 steps a row of the table, through recipes/sft_lora.py, and Hugging Face with
PEFT on the same rows. Each row is a process with a limit of its own; what does not run is "not measured", with the
reason. Finished rows are kept in the folder, so that a call that was cut off goes on where it stopped.

Without a GPU every row is rehearsed with two small layers on the CPU, which proves that the commands run, and the page
says "not measured".
"""

import argparse
import datetime
import importlib.util
import json
import os
import platform
import random
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from composing import asked_settings  # noqa: E402
from corpus import text  # noqa: E402
from gpu_rows import Measured, Row, chosen_rows, page  # noqa: E402
from random_base import write_base  # noqa: E402
from tiny import chatml_tokenizer  # noqa: E402

from nemo_reasoning.artifacts import installed_version  # noqa: E402
from nemo_reasoning.config.model import Architecture  # noqa: E402
from nemo_reasoning.data.store import IGNORED_LABEL, TokenStore  # noqa: E402
from nemo_reasoning.training.loggers import read_metrics  # noqa: E402
from nemo_reasoning.training.memory.estimate import GIB, estimate_memory  # noqa: E402
from nemo_reasoning.training.memory.planner import fit_to_memory  # noqa: E402
from nemo_reasoning.training.memory.workload import workload_of  # noqa: E402

PAGE = ROOT / "docs" / "results" / "gpu.md"
PACKAGES = (
    *("torch", "nemo_toolkit", "megatron-core", "transformer-engine", "flash-attn", "liger-kernel", "bitsandbytes"),
    *("transformers", "peft"),
)
BATCH, DIM, WARM_UP = 4, 64, 3
SMALL = {"num_layers": 2, "hidden_size": 256, "ffn_hidden_size": 512, "num_attention_heads": 4}
ROW_SECONDS = 420  # of one process, at most
LEAST_SECONDS = 60  # with less left, a row is not begun


@dataclass(frozen=True)
class Check:
    """A call of this script.

    Attributes:
        folder: Where bases, runs and results lie.
        gpu: Whether there is one; otherwise everything is small.
        ends: `time.monotonic()` at which to stop.
    """

    folder: Path
    gpu: bool
    ends: float

    def small(self, row: Row) -> bool:
        """Whether a row's model has two small layers."""
        return row.small or not self.gpu

    @property
    def steps(self) -> int:
        """Steps of each row."""
        return 20 if self.gpu else 4


def main() -> None:
    """Measure every row, or rehearse it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "gpu-check", help="40 GB with a GPU")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--rows", nargs="+", help="names of rows; all others stay as they were")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    check = Check(arguments.folder, torch.cuda.is_available(), time.monotonic() + 60 * arguments.minutes)
    found = _known(check)
    for row in chosen_rows(arguments.rows):
        if row.name not in found or not found[row.name].ran:
            found[row.name] = _measured(check, row)
            print(row.name, json.dumps(asdict(found[row.name])), flush=True)
            _keep(check, found)
    arguments.page.parent.mkdir(parents=True, exist_ok=True)
    text = page(found, machine=_machine(check), gpu=check.gpu, date=datetime.date.today().isoformat())
    arguments.page.write_text(text, encoding="utf-8")
    print(text)


def _known(check: Check) -> dict[str, Measured]:
    """Return what an earlier call measured on the same kind of machine."""
    path = check.folder / "results.json"
    if not path.is_file():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {name: Measured(**row) for name, row in kept["rows"].items()} if kept["machine"] == _machine(check) else {}


def _keep(check: Check, found: dict[str, Measured]) -> None:
    kept = {"machine": _machine(check), "rows": {name: asdict(row) for name, row in found.items()}}
    (check.folder / "results.json").write_text(json.dumps(kept), encoding="utf-8")


def _machine(check: Check) -> str:
    versions = ", ".join(f"{name} {version}" for name in PACKAGES if (version := installed_version(name)))
    device = torch.cuda.get_device_name() if check.gpu else "no GPU"
    return f"{device}, Python {platform.python_version()}, {versions}"


def _measured(check: Check, row: Row) -> Measured:
    """Run a row; what goes wrong is its result."""
    check.folder.mkdir(parents=True, exist_ok=True)
    if reason := row.missing(check.gpu):
        return Measured(reason=reason)
    if check.ends - time.monotonic() < LEAST_SECONDS:
        return Measured(reason="no time left")
    try:
        return (_peer if row.peer else _ours)(check, row)
    except subprocess.CalledProcessError as error:
        output = error.stdout or ""
        return Measured(reason="out of memory" if "out of memory" in output.lower() else _last_line(output))
    except subprocess.TimeoutExpired as error:
        return Measured(reason=f"stopped after {error.timeout:.0f} s")


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return f"failed: {lines[-1][:200]}" if lines else "failed without a word"


def _ours(check: Check, row: Row) -> Measured:
    """Train through the recipe; with `row.again` on the CPU or in two starts besides, for a second loss."""
    folder = check.folder / row.name
    overrides = _overrides(check, row, folder)
    began = time.monotonic()
    _run(check, [ROOT / "recipes" / "sft_lora.py", *overrides], folder)
    started = time.monotonic() - began
    steps = [record for record in read_metrics(folder / "metrics.jsonl") if "loss" in record]
    other: list[float] = []
    if row.again:
        again = check.folder / f"{row.name}-again"
        for more in row.again:
            _run(check, [ROOT / "recipes" / "sft_lora.py", *_overrides(check, row, again), *more], again)
        other = [record["loss"] for record in read_metrics(again / "metrics.jsonl") if "loss" in record]
    settled = fit_to_memory(asked_settings(*overrides))
    work = workload_of(settled, _shape(check, row))
    without_te = work.torch_layers or importlib.util.find_spec("transformer_engine") is None
    planned = estimate_memory(replace(work, torch_layers=without_te))
    peaks = [record["vram_peak_bytes"] for record in steps if "vram_peak_bytes" in record]
    timed = steps[WARM_UP:]
    mfu = [record["mfu"] for record in timed if "mfu" in record]
    return Measured(
        micro_batch=settled.trainer.micro_batch_size,
        tokens_per_second=sum(record["tokens_per_second"] for record in timed) / len(timed),
        mfu=sum(mfu) / len(mfu) if mfu else None,
        peak_gib=max(peaks) / GIB if peaks else None,
        planned_gib=(planned.total - planned.context) / GIB if peaks else None,
        first_loss=steps[0]["loss"],
        last_loss=steps[-1]["loss"],
        largest_difference=max(abs(a["loss"] - b) for a, b in zip(steps, other, strict=True)) if other else None,
        seconds=started,
    )


def _peer(check: Check, row: Row) -> Measured:
    """Train with PEFT on the rows of one of our runs, in their order."""
    data = check.folder / row.peer / "data" / "train"
    if not data.is_dir():
        return Measured(reason=f"{row.peer} left no rows")
    rows = check.folder / f"{row.name}.jsonl"
    store = TokenStore.open(data)
    with rows.open("w", encoding="utf-8") as lines:
        for sample in (store[number] for number in range(min(len(store), check.steps * BATCH))):
            labels = np.where(sample.loss_mask, sample.ids, IGNORED_LABEL)
            lines.write(json.dumps({"input_ids": sample.ids.tolist(), "labels": labels.tolist()}) + "\n")
    steps = min(check.steps, 8)
    command = [ROOT / "tests" / "gpu" / "gpu_peer.py", _base(check, row), rows, str(steps), str(BATCH), str(DIM)]
    began = time.monotonic()
    said = json.loads(_run(check, [*command, *row.overrides], check.folder).strip().splitlines()[-1])
    timed = said["seconds"][WARM_UP:]
    return Measured(
        micro_batch=1,
        tokens_per_second=said["tokens"] * len(timed) / sum(timed),
        peak_gib=said["peak"] / GIB if said["peak"] else None,
        first_loss=said["losses"][0],
        last_loss=said["losses"][-1],
        seconds=time.monotonic() - began,
    )


def _overrides(check: Check, row: Row, folder: Path) -> list[str]:
    tokens = row.tokens if check.gpu else 256
    rehearsed = [] if check.gpu else ["hardware=cpu", "trainer.micro_batch_size=1"]
    chosen = [setting for setting in row.overrides if check.gpu or not setting.startswith("trainer.fp8")]
    return [
        f"model={'hf_local' if check.small(row) else 'llama3_8b'}",  # a shape that the planner knows
        *(f"model.source={_base(check, row)}", "model.template=chatml", "model.dtype=bfloat16"),
        *("data=jsonl", f"data.paths=[{_texts(check, tokens)}]", "data.thinking_off_share=0", "data.order=curriculum"),
        "data.validation_share=0.2",
        *(f"trainer.seq_length={tokens}", f"trainer.global_batch_size={BATCH}", f"trainer.max_steps={check.steps}"),
        *(f"trainer.eval_interval={check.steps}", "callbacks.samples_interval=0", "logger=none", f"peft.dim={DIM}"),
        *(f"cache_dir={check.folder / 'cache'}", f"output_dir={folder}", "peft.dropout=0", "restart=true"),
        *(*rehearsed, *chosen),
    ]


def _shape(check: Check, row: Row) -> Architecture:
    shape = asked_settings("model=llama3_8b").model.architecture
    assert shape is not None
    return shape if not check.small(row) else replace(shape, **SMALL, num_query_groups=2, head_dim=64)


def _base(check: Check, row: Row) -> Path:
    """Return the base model of a row, written if necessary; the last file to appear is config.json."""
    folder = check.folder / ("base-small" if check.small(row) else "base-8b")
    if not (folder / "config.json").is_file():
        tokenizer, borrowed = chatml_tokenizer(), check.folder / "tokenizer"
        tokenizer.save_pretrained(borrowed)
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        (borrowed / "config.json").write_text(json.dumps(ids), encoding="utf-8")
        write_base(folder, _shape(check, row), tokenizer=borrowed)
    return folder


def _texts(check: Check, tokens: int) -> Path:
    """Return chats of nearly so many tokens, which are bytes."""
    path = check.folder / f"rows-{tokens}.jsonl"
    numbers, size = random.Random(tokens), tokens - 160
    with path.open("w", encoding="utf-8") as lines:
        for number in range(BATCH * (check.steps * 3 // 2 + 2)):
            trace = text(2 * size, ["return total"], numbers).encode("ascii", "ignore").decode()[:size]
            answer = f"<think>\n{trace}\n</think>\n\n{number}"
            turns = [{"role": "user", "content": f"Problem {number}."}, {"role": "assistant", "content": answer}]
            lines.write(json.dumps({"messages": turns}) + "\n")
    return path


def _run(check: Check, command: list[Any], folder: Path) -> str:
    """Return what a process printed."""
    limit = max(1.0, min(ROW_SECONDS, check.ends - time.monotonic()))
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=limit,
    ).stdout


if __name__ == "__main__":
    main()
