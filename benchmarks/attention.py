"""Measure the blocked attention of the torch layers against torch's own, in bfloat16 on a CPU.

One layer of SmolLM2-135M, packed samples of some lengths; torch takes each sample alone, as nothing else keeps
samples apart. The last line is a JSON object.
"""

import argparse
import json
import random
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from nemo_reasoning.backend.attention import Samples, blocked_attention

HEADS, GROUPS, SIZE, THREADS = 9, 3, 64, 2
SCALE = SIZE**-0.5
LENGTHS = {
    "short": [80] * 20,
    "mixed": [947, 422, 400, 380, 202, 200, 130, 60],
    "long": [2048],
}
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def main() -> None:
    """Measure all, print a table, and last of all one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 repetitions instead of 30")
    repetitions = 3 if parser.parse_args().quick else 30
    torch.set_num_threads(THREADS)
    table = Table("samples", "torch, ms", "blocked, ms", "ratio", title=f"forward and backward, {THREADS} threads")
    figures = {}
    for name, lengths in LENGTHS.items():
        random.Random(0).shuffle(lengths)
        torchs, ours = (
            seconds(attention, lengths, repetitions) for attention in (one_by_one(lengths), blocked(lengths))
        )
        described = f"{name}: {len(lengths)} of {min(lengths)} to {max(lengths)} tokens"
        table.add_row(described, f"{torchs * 1e3:.1f}", f"{ours * 1e3:.1f}", f"{torchs / ours:.2f}")
        figures[f"{name}_ratio"] = round(torchs / ours, 2)
    Console().print(table)
    print(json.dumps(figures))


def one_by_one(lengths: list[int]) -> Attention:
    """Return torch's attention over packed samples."""

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        samples = zip(*(torch.split(x, lengths) for x in (query, key, value)), strict=True)
        mixed = [
            F.scaled_dot_product_attention(*(x.transpose(0, 1)[None] for x in sample), is_causal=True, enable_gqa=True)
            for sample in samples
        ]
        return torch.cat([x[0].transpose(0, 1) for x in mixed])

    return attention


def blocked(lengths: list[int]) -> Attention:
    """Return ours; where samples lie is worked out once a batch, as in training."""
    samples = Samples(lengths)
    return lambda query, key, value: blocked_attention(query, key, value, samples=samples, scale=SCALE)


def seconds(attention: Attention, lengths: list[int], repetitions: int) -> float:
    """Return the least time of a forward and a backward pass."""
    shapes = [(sum(lengths), heads, SIZE) for heads in (HEADS, GROUPS, GROUPS)]
    inputs = [torch.randn(shape, dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    gradient = torch.randn(shapes[0], dtype=torch.bfloat16)
    times = []
    for _ in range(repetitions):
        began = time.perf_counter()
        torch.autograd.grad(attention(*inputs), inputs, gradient)
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    main()
