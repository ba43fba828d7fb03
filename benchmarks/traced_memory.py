"""Trace a step for every cell of docs/memory.md's table and compare its peak with the planner's.

Prints the Markdown of docs/results/memory.md, and last a JSON object. The layers are torch's, or Transformer Engine's
with `--layers te`; then .overlays/transformer-engine (from `make setup`) and tests/rehearsal/stand_ins have to be on
PYTHONPATH. Several ranks are traced as their first.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hydra import compose, initialize_config_dir
from tracing import trace_step, traced_device

from nemo_reasoning.config import CONF_DIR, load_settings
from nemo_reasoning.config.model import LORA_TARGETS, PeftScheme
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.hardware import register_resolvers
from nemo_reasoning.training.memory.estimate import GIB, estimate_memory
from nemo_reasoning.training.memory.tables import fitting_workloads
from nemo_reasoning.training.memory.workload import Workload, workload_of

TWINS = {"llama31_8b", "llama31_nemotron_nano_8b", "llama31_70b"}  # in memory what their Llama 3 is
HEADINGS = ("layers", "model", "ranks", "peft", "rows x tokens", "recompute", "traced GiB", "planned GiB", "off")


def main() -> None:
    """Trace, print a table, and last of all one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", choices=("torch", "te"), default="torch")
    parser.add_argument("--model", help="only this file of conf/model")
    parser.add_argument("--tensor-parallel", type=int, default=1)
    parser.add_argument("--pipeline-parallel", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="LoRA of Llama 3 8B alone")
    arguments = parser.parse_args()
    te, tensor, pipeline = arguments.layers == "te", arguments.tensor_parallel, arguments.pipeline_parallel
    register_resolvers()
    found, table = [], [HEADINGS, tuple("---" for _ in HEADINGS)]
    with traced_device(tensor_parallel=tensor, pipeline_parallel=pipeline, te=te):
        _quiet()
        for name, work in _cells(arguments):
            if te and work.scheme is PeftScheme.qlora:
                continue  # its layers are torch's
            settings = _settings(name, work, tensor=tensor, pipeline=pipeline)
            traced = trace_step(settings, te=te).peak
            planned = estimate_memory(
                replace(workload_of(settings, work.shape), torch_layers=not te, micro_batch_size=work.micro_batch_size)
            ).peak
            row = _row(arguments.layers, name, work, ranks=f"{tensor} x {pipeline}", traced=traced, planned=planned)
            found.append(dict(zip(HEADINGS, row, strict=True)))
            table.append(row)
            print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{len(found)} cells; the planner is off by at most {max(abs(float(row['off'][:-1])) for row in found)} %")
    print(json.dumps(found))


def _cells(arguments: argparse.Namespace) -> Iterator[tuple[str, Workload]]:
    """Yield (model, workload) of the cells to trace, each workload once."""
    seen: set[Any] = set()
    for name, work in fitting_workloads():
        wanted = name == arguments.model if arguments.model else name not in TWINS
        if arguments.quick:
            wanted = name == "llama3_8b" and work.scheme is PeftScheme.lora
        key = (name, work.scheme, work.target_modules, work.micro_batch_size, work.recompute)
        if wanted and key not in seen:
            seen.add(key)
            yield name, work


def _settings(name: str, work: Workload, *, tensor: int, pipeline: int) -> SftSettings:
    overrides = [
        *(f"model={name}", "model.init=random", f"peft={work.scheme.value}", "hardware=gpu_141gb"),
        *(f"trainer.micro_batch_size={work.micro_batch_size}", f"trainer.global_batch_size={work.micro_batch_size}"),
        *(f"trainer.recompute={work.recompute.name}", f"trainer.packing={str(pipeline == 1).lower()}"),
        *(f"trainer.devices={tensor * pipeline}", f"trainer.tensor_model_parallel_size={tensor}"),
        f"trainer.pipeline_model_parallel_size={pipeline}",
    ]
    if work.scheme is not PeftScheme.none:
        overrides.append(f"peft.target_modules=[{','.join(work.target_modules)}]")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return load_settings(compose("sft_lora", overrides), SftSettings)


def _row(layers: str, name: str, work: Workload, *, ranks: str, traced: int, planned: int) -> tuple[str, ...]:
    scheme = work.scheme.value
    if work.scheme is PeftScheme.qlora and set(work.target_modules) == set(LORA_TARGETS):
        scheme = "qlora, all linears"
    return (
        *(layers, name, ranks, scheme, f"{work.micro_batch_size} x {work.seq_length}", work.recompute.name),
        *(f"{traced / GIB:.2f}", f"{planned / GIB:.2f}", f"{100 * (planned / traced - 1):+.1f}%"),
    )


def _quiet() -> None:
    from nemo.utils import logging

    logging.setLevel(40)


if __name__ == "__main__":
    main()
