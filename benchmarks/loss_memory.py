"""Measure the memory of the loss: plain logits in float32, torch's chunked loss, and ours.

Vocabulary and positions are those of a Llama-3 at its longest packed bin; 30 % of the positions are
supervised. Each way runs forward and backward in a process of its own. On a GPU memory is the allocator's
peak, on a CPU the process's peak resident memory, both beyond the inputs. The last line is a JSON object.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from nemo_reasoning.data.store import IGNORED_LABEL
from nemo_reasoning.training.loss import supervised_loss
from nemo_reasoning.training.memory_stats import rss_peak

VOCABULARY, POSITIONS, SUPERVISED_SHARE = 128_256, 8_192, 0.3
HIDDEN_SIZE = 4096
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def plain(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed loss the usual way: all logits, in float32."""
    logits = F.linear(hidden, weight).float()
    return F.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="sum")


def chunked(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed loss of torch's own fused function, which takes every position through the head."""
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight, labels, ignore_index=IGNORED_LABEL, reduction="sum", options=options)


def ours(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed loss of this package."""
    return supervised_loss(hidden[:, None], weight, labels[None]).sum()


WAYS: dict[str, Loss] = {"plain": plain, "chunked": chunked, "ours": ours}
NAMES = {"plain": "logits in float32", "chunked": "torch's linear_cross_entropy, chunked", "ours": "this package"}


def main() -> None:
    """Measure all, print a table, and last of all one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="hidden states of 256 instead of 4,096")
    parser.add_argument("--way", choices=WAYS, help="measure this one only, in this process")
    parser.add_argument("--hidden-size", type=int, default=HIDDEN_SIZE)
    arguments = parser.parse_args()
    hidden_size = 256 if arguments.quick else arguments.hidden_size
    if arguments.way:
        print(json.dumps(measure(WAYS[arguments.way], hidden_size)))
        return
    found = {way: _apart(way, hidden_size) for way in WAYS}
    title = f"vocabulary {VOCABULARY:,}, {POSITIONS:,} positions, hidden size {hidden_size:,}, {DEVICE}"
    table = Table("loss", "GB beyond its inputs", "seconds", "loss per token", title=title)
    for way, figures in found.items():
        row = (f"{figures['gigabytes']:.2f}", f"{figures['seconds']:.1f}", f"{figures['loss']:.5f}")
        table.add_row(NAMES[way], *row)
    Console().print(table)
    print(json.dumps({f"{way}_{key}": value for way, figures in found.items() for key, value in figures.items()}))


def measure(loss: Loss, hidden_size: int) -> dict[str, float]:
    """Return the memory, the seconds and the value of a loss, forward and backward."""
    torch.manual_seed(0)
    dtype = torch.bfloat16
    weight = torch.randn(VOCABULARY, hidden_size, device=DEVICE, dtype=dtype).mul_(0.02)
    hidden = torch.randn(POSITIONS, hidden_size, device=DEVICE, dtype=dtype).requires_grad_()
    labels = torch.randint(VOCABULARY, (POSITIONS,), device=DEVICE)
    labels[torch.rand(POSITIONS, device=DEVICE) >= SUPERVISED_SHARE] = IGNORED_LABEL
    loss(hidden[:64], weight, labels[:64]).backward()  # loads the kernels
    hidden.grad = None
    before = _held(reset=True)
    began = time.perf_counter()
    value = loss(hidden, weight, labels)
    value.backward()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    supervised = int((labels != IGNORED_LABEL).sum())
    gigabytes = (_held() - before) / 1e9
    return {
        "gigabytes": round(gigabytes, 3),
        "seconds": round(seconds, 2),
        "loss": round(float(value.detach()) / supervised, 5),
    }


def _held(*, reset: bool = False) -> int:
    """Return the peak in bytes since the last reset, which makes the peak what is held now."""
    if DEVICE == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return rss_peak()


def _apart(way: str, hidden_size: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--way", way, "--hidden-size", str(hidden_size)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
