"""Throughput and memory in the records of a run."""

import gc
from pathlib import Path

import pytest
import torch
from tiny_run import At, TinyLoop, batch_counts, fit

from nemo_reasoning.models.flops import BatchCounts
from nemo_reasoning.models.gpus import find_gpu
from nemo_reasoning.training.callbacks.memory import GarbageCollection, MemoryMonitor
from nemo_reasoning.training.callbacks.throughput import ThroughputMonitor, rates
from nemo_reasoning.training.checkpoints import METRICS_FILE
from nemo_reasoning.training.loggers import JsonlLogger, read_metrics
from nemo_reasoning.training.memory_stats import Phase

RATES = {
    "tokens_per_second": 10,
    "nonpad_tokens_per_second": 8,
    "supervised_tokens_per_second": 3,
    "samples_per_second": 1,
}


def test_rates_divide_each_count() -> None:
    counts = BatchCounts(samples=4, tokens=100, nonpad_tokens=80, supervised_tokens=30)

    assert rates(counts, seconds=2) == {
        "tokens_per_second": 50,
        "nonpad_tokens_per_second": 40,
        "supervised_tokens_per_second": 15,
        "samples_per_second": 2,
    }


def test_each_step_uses_the_counts_of_its_own_batch(tmp_path: Path) -> None:
    monitor = ThroughputMonitor(counts=batch_counts, flops=lambda counts: 1e6 * counts.samples)
    fit(tmp_path, [monitor], max_steps=4, loggers=[JsonlLogger(tmp_path / METRICS_FILE)])
    records = read_metrics(tmp_path / METRICS_FILE)

    for record in records:
        for name, per_sample in RATES.items():
            assert record[name] * record["step_seconds"] == pytest.approx(per_sample * record["step"])
        assert record["flops_per_second"] * record["step_seconds"] == pytest.approx(1e6 * record["step"])
        assert record["step_seconds_p50"] <= record["step_seconds_p95"]
    assert records[0]["eta_seconds"] > records[-1]["eta_seconds"] == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU's peak may be known")
def test_utilization_is_left_out_where_the_peak_is_unknown(tmp_path: Path) -> None:
    monitor = ThroughputMonitor(counts=batch_counts, flops=lambda counts: 1.0)
    fit(tmp_path, [monitor], max_steps=1, loggers=[JsonlLogger(tmp_path / METRICS_FILE)])
    (record,) = read_metrics(tmp_path / METRICS_FILE)

    assert "flops_per_second" in record
    assert "mfu" not in record


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA A10", 125),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA RTX 6000 Ada Generation", 364.2),
        ("NVIDIA B200", 2250),
    ],
)
def test_known_gpus_have_their_dense_peak(name: str, tera: float) -> None:
    gpu = find_gpu(name)
    assert gpu is not None
    assert gpu.bf16 == tera * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA A10G",
        "NVIDIA L40",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
        "Tesla T4",
    ],
)
def test_other_gpus_are_not_guessed(name: str) -> None:
    assert find_gpu(name) is None


def test_memory_is_reported_by_phase_and_step(tmp_path: Path) -> None:
    fit(tmp_path, [MemoryMonitor()], max_steps=4, loggers=[JsonlLogger(tmp_path / METRICS_FILE)])
    records = read_metrics(tmp_path / METRICS_FILE)

    assert all(0 < record["rss_bytes"] <= record["rss_peak_bytes"] for record in records)
    assert "fit_start/rss_bytes" in records[0]
    assert "validation/rss_bytes" not in records[1]
    assert {"validation/rss_bytes", "checkpoint/rss_bytes"} <= set(records[2])


def test_a_crash_leaves_no_phase_open(tmp_path: Path) -> None:
    def crash() -> None:
        raise RuntimeError("crash")

    before = list(Phase._open)
    with pytest.raises(RuntimeError, match="crash"):
        fit(tmp_path, [MemoryMonitor(), At(2, crash, hook="on_validation_start")], max_steps=2)

    assert Phase._open == before


def test_garbage_is_collected_by_the_callback_alone() -> None:
    seen: list[bool] = []
    TinyLoop([GarbageCollection(2), At(1, lambda: seen.append(gc.isenabled()))], max_steps=2).run()
    assert (seen, gc.isenabled()) == ([False], True)
