"""Trace a step of one rank of several, at full size, and compare it with the planner's parts.

    python benchmarks/traced_layouts.py            # the table of docs/results/memory.md, and last a JSON object
    python benchmarks/traced_layouts.py --quick    # one row

Each row is a process of its own: the ranks of Megatron last as long as a process.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from hydra import compose, initialize_config_dir

from nemo_reasoning.config import CONF_DIR, load_settings
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.config.trainer import Recompute
from nemo_reasoning.hardware import register_resolvers
from nemo_reasoning.training.memory.activations import kept_bytes
from nemo_reasoning.training.memory.estimate import GIB, estimate_memory
from nemo_reasoning.training.memory.static import trained_tensors
from nemo_reasoning.training.memory.workload import Workload, workload_of

if TYPE_CHECKING:
    from tracing import Traced

HEADINGS = (
    *("model", "peft", "ranks", "stage", "rows x tokens", "recompute", "base", "adapter", "gradients, optimizer"),
    *("kept, traced GiB", "kept, planned GiB", "off", "peak, traced GiB", "peak, planned GiB", "off by"),
)


@dataclass(frozen=True)
class Rank:
    """One rank of a layout.

    Attributes:
        model: A file of conf/model.
        peft: A file of conf/peft.
        tensor: Ranks that share a layer.
        pipeline: Ranks that share the layers out.
        stage: This one's number among those.
        sequence: Whether the positions are shared too.
        rows: Of a micro-batch.
        recompute: What is computed again.
        rows_a_step: On one replica.
    """

    model: str
    peft: str
    tensor: int = 1
    pipeline: int = 1
    stage: int = 0
    sequence: bool = False
    rows: int = 1
    recompute: str = "full"
    rows_a_step: int = 16


RANKS = [
    Rank("llama3_8b", "lora", tensor=2, sequence=True, recompute="none"),
    Rank("llama3_8b", "lora", tensor=2, sequence=True, rows=4),
    Rank("llama3_8b", "lora", tensor=4, sequence=True, rows=2, recompute="none"),
    *(Rank("llama3_8b", "lora", pipeline=2, stage=stage, recompute="none") for stage in (0, 1)),
    Rank("llama3_8b", "qlora", tensor=2, sequence=True, recompute="none"),
    Rank("llama3_8b", "qlora", pipeline=4, stage=1, rows=2),
    Rank("llama3_8b", "dora", pipeline=2, stage=1),
    Rank("llama3_8b", "none", tensor=4, sequence=True),
    Rank("llama3_8b", "none", tensor=2, pipeline=2, stage=0, sequence=True),
    Rank("llama3_8b", "none", tensor=2, pipeline=2, stage=1, sequence=True),
    Rank("llama31_70b", "lora", tensor=8, sequence=True, rows=2),
    Rank("llama31_70b", "lora", tensor=4, sequence=True),
    *(Rank("llama31_70b", "lora", tensor=4, pipeline=2, stage=stage, sequence=True) for stage in (0, 1)),
    Rank("llama31_70b", "lora", tensor=2, pipeline=4, stage=2, sequence=True),
    Rank("llama31_70b", "qlora", tensor=2, sequence=True),
    Rank("llama31_70b", "qlora", tensor=8, sequence=True, recompute="none"),
    Rank("qwen25_7b", "lora", tensor=2, pipeline=2, stage=1, sequence=True, recompute="none"),
]


def settings_of(rank: Rank) -> SftSettings:
    """Return the settings of a run with this rank."""
    settings = _settings(rank.model, rank.peft)
    trainer = replace(
        settings.trainer,
        micro_batch_size=rank.rows,
        global_batch_size=rank.rows_a_step,
        recompute=Recompute[rank.recompute],
        devices=rank.tensor * rank.pipeline,
        tensor_model_parallel_size=rank.tensor,
        pipeline_model_parallel_size=rank.pipeline,
        sequence_parallel=rank.sequence,
    )
    return replace(settings, trainer=trainer)


@cache
def _settings(model: str, peft: str) -> SftSettings:
    register_resolvers()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        overrides = [f"model={model}", "model.init=random", f"peft={peft}", "hardware=gpu_141gb"]
        return load_settings(compose("sft_lora", overrides), SftSettings)


def planned(rank: Rank) -> Workload:
    """Return what the planner makes of a rank."""
    settings = settings_of(rank)
    assert settings.model.architecture is not None
    return replace(workload_of(settings, settings.model.architecture), stage=rank.stage, torch_layers=True)


def traced(rank: Rank) -> "Traced":
    """Return what a step of a rank holds; only once in a process."""
    from tracing import trace_step, traced_device

    with traced_device(tensor_parallel=rank.tensor, pipeline_parallel=rank.pipeline, stage=rank.stage):
        return trace_step(settings_of(rank), in_flight=planned(rank).in_flight)


def row(rank: Rank, found: "Traced") -> dict[str, str]:
    """Return a line of the table."""
    work = planned(rank)
    plan, kept = estimate_memory(work), kept_bytes(work)
    trained = (found.base if work.trains_base else found.adapter) // work.width
    counters = 4 * len(trained_tensors(work))  # of torch's steps
    cells = (
        *(rank.model, rank.peft, f"{rank.tensor} x {rank.pipeline}{', sequence' if rank.sequence else ''}"),
        *(rank.stage, f"{rank.rows} x {work.seq_length}", rank.recompute),
        *(_compared(found.base, plan.static.weights), _compared(found.adapter, plan.static.adapter)),
        _compared(16 * trained, plan.static.gradients + plan.static.optimizer - counters),
        *(f"{found.kept / GIB:.3f}", f"{kept / GIB:.3f}", f"{100 * (kept / found.kept - 1):+.1f}%"),
        *(f"{found.peak / GIB:.2f}", f"{plan.peak / GIB:.2f}", f"{100 * (plan.peak / found.peak - 1):+.1f}%"),
    )
    return dict(zip(HEADINGS, map(str, cells), strict=True))


def _compared(traced: int, planned: int) -> str:
    return f"{traced:,}" if traced == planned else f"{traced:,}, planned {planned:,}"


def main() -> None:
    """Trace each rank in a process of its own, print the table, and last a JSON object."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="one row")
    parser.add_argument("--only", type=int, help="number of the row to trace, from 0, in this process")
    chosen = parser.parse_args()
    if chosen.only is not None:
        print(json.dumps(row(RANKS[chosen.only], traced(RANKS[chosen.only]))))
        return
    print(f"| {' | '.join(HEADINGS)} |\n{'|---' * len(HEADINGS)}|", flush=True)
    found = []
    for number in range(1 if chosen.quick else len(RANKS)):
        again = [sys.executable, __file__, f"--only={number}"]
        done = subprocess.run(again, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"| {' | '.join(found[-1].values())} |", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
