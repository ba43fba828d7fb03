"""The planner against steps traced at full size on the meta device, as docs/results/memory.md has them."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from architectures import listed

from nemo_reasoning.config.model import LORA_TARGETS, PeftScheme
from nemo_reasoning.config.trainer import Recompute
from nemo_reasoning.peft import nf4
from nemo_reasoning.training.memory.estimate import GIB, QUANTIZING_BYTES, estimate_memory
from nemo_reasoning.training.memory.tables import fitting_workloads
from nemo_reasoning.training.memory.workload import Workload

ROOT = Path(__file__).resolve().parents[4]
TWINS = {"llama31_8b": "llama3_8b", "llama31_nemotron_nano_8b": "llama3_8b", "llama31_70b": "llama3_70b"}
Row = dict[str, str]


@cache
def workloads() -> list[tuple[str, Workload]]:
    """Return the planner's own."""
    return list(fitting_workloads())


def recorded() -> list[Row]:
    """Return the rows of the document's tables, by heading."""
    lines = (ROOT / "docs" / "results" / "memory.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("|")]
    headings = cells[0]
    return [dict(zip(headings, row, strict=True)) for row in cells if row != headings and row[0] != "---"]


def planned(row: Row) -> float:
    """Return what the planner says of a row, in GiB."""
    scheme, _, every = row["peft"].partition(", ")
    micro_batch, tokens = (int(number) for number in row["rows x tokens"].split(" x "))
    tensor, pipeline = (int(number) for number in row["ranks"].split(" x "))
    found = next(work for name, work in workloads() if name == row["model"] and work.scheme.value == scheme)
    work = replace(
        found,
        target_modules=tuple(LORA_TARGETS) if every else found.target_modules,
        seq_length=tokens,
        micro_batch_size=micro_batch,
        recompute=Recompute[row["recompute"]],
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        torch_layers=row["layers"] == "torch",
    )
    return estimate_memory(work).peak / GIB


def test_every_traced_step_is_planned_to_within_five_percent() -> None:
    rows = recorded()
    assert len(rows) > 60
    for row in rows:
        assert planned(row) == pytest.approx(float(row["planned GiB"]), abs=0.011), row
        assert planned(row) == pytest.approx(float(row["traced GiB"]), rel=0.05), row


def test_every_cell_of_the_table_of_what_fits_was_traced() -> None:
    def key(name: str, work: Workload) -> tuple[str, str, str, str]:
        every = work.scheme is PeftScheme.qlora and set(work.target_modules) == set(LORA_TARGETS)
        scheme = "qlora, all linears" if every else work.scheme.value
        return TWINS.get(name, name), scheme, f"{work.micro_batch_size} x {work.seq_length}", work.recompute.name

    traced = {(row["model"], row["peft"], row["rows x tokens"], row["recompute"]) for row in recorded()}
    assert {key(name, work) for name, work in workloads()} <= traced
    assert listed("llama3_8b").num_layers == listed("llama31_8b").num_layers


def test_what_quantizing_a_weight_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from tracing import DEVICE, Storages

    monkeypatch.setitem(nf4._CHUNK, "meta", nf4._CHUNK["cuda"])
    with Storages() as storages:
        weight = torch.empty(28672, 4096, dtype=torch.bfloat16, device=DEVICE)
        packed, _ = nf4.quantize(weight)
    assert packed.numel() == weight.numel() / 2
    taken = storages.peak - weight.nbytes - weight.numel()  # the weight, and a code of a byte for each entry
    assert QUANTIZING_BYTES / 2 < taken <= QUANTIZING_BYTES


@pytest.mark.slow
def test_a_step_is_traced_anew() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "traced_memory.py"), "--quick"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    before = {tuple(row.values())[:6]: row["traced GiB"] for row in recorded()}
    again = json.loads(done.stdout.splitlines()[-1])
    assert again
    for row in again:
        assert float(row["traced GiB"]) == pytest.approx(float(before[tuple(row.values())[:6]]), abs=0.011), row
