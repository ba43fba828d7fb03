"""Compare the service with vLLM's on the same cores, alone and beside another process that computes.

`python benchmarks/serve_peers.py [--quick] [--vllm .venv-vllm/bin/python]`: one machine, one run, the same model,
prompts and lengths. Beside the other process transformers' own generate is measured too: what is left of the cores
is then the same for all. Without `--vllm` vLLM is left out. The last line is a JSON object.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table
from serve import DTYPE, MODEL, Size, body_of, measure_speed, measure_transformers, requests_of, service
from streaming import ask_in_turn

from nemo_reasoning.data.chat import load_template
from nemo_reasoning.export.tokenizer import strip_generation
from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.inference.vllm.server import VllmServer
from nemo_reasoning.models.hub import PACKAGED_MODEL, fetch_base

FULL = Size(clients=8, prompts=16, rounds=3, requests=0, max_new_tokens=64)
QUICK = Size(clients=8, prompts=8, rounds=1, requests=0, max_new_tokens=24)
_COMPUTE = "import torch\na = torch.randn(700, 700)\nwhile True: a @ a"


@contextmanager
def competitor() -> Iterator[None]:
    """Let another process compute on one of the cores."""
    process = subprocess.Popen([sys.executable, "-c", _COMPUTE], env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        time.sleep(5)  # it imports torch first
        yield
    finally:
        process.kill()
        process.wait()


async def stream_speed(url: str, requests: Sequence[GenerationRequest]) -> float:
    """Return tokens a second of one client that streams."""
    bodies = [body_of(request) for request in requests]
    await ask_in_turn(url, bodies[:1])
    start = time.perf_counter()
    heard = await ask_in_turn(url, bodies)
    return sum(each.tokens for each in heard) / (time.perf_counter() - start)


def measure_server(url: str, requests: Sequence[GenerationRequest], size: Size) -> dict[str, float]:
    """Return what clients of a server see: together, one by one, and one beside another process."""
    together = asyncio.run(measure_speed(url, requests, size))
    single = asyncio.run(stream_speed(url, requests))
    with competitor():
        beside = asyncio.run(stream_speed(url, requests))
    return {"single_tokens_per_s": single, **together, "beside_tokens_per_s": beside}


@contextmanager
def vllm(python: Path, model: Path) -> Iterator[str]:
    """Run vLLM's server; yield its address."""
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "chatml.jinja"
        template.write_text(strip_generation(load_template("chatml")))
        args = ["--dtype", DTYPE, "--max-model-len", "2048", "--chat-template", str(template)]
        server = VllmServer(python, model, adapters={}, args=[*args, "--served-model-name", MODEL], cache_gb=1)
        try:
            yield server.url
        finally:
            server.close()


def measure(size: Size, python: Path | None) -> dict[str, dict[str, float]]:
    """Return the figures of every server."""
    cache_dir = Path(os.environ.get("NEMO_REASONING_CACHE", "~/.cache/nemo_reasoning")).expanduser()
    model = fetch_base(PACKAGED_MODEL, revision=None, cache_dir=cache_dir).path
    requests = requests_of(size)
    found: dict[str, dict[str, float]] = {
        "transformers": {"single_tokens_per_s": measure_transformers(model, requests)}
    }
    with competitor():
        found["transformers"]["beside_tokens_per_s"] = measure_transformers(model, requests)
    with service(DTYPE) as (url, _):
        found["ours"] = measure_server(url, requests, size)
    if python is not None:
        with vllm(python, model) as url:
            found["vLLM"] = measure_server(url, requests, size)
    return found


def main() -> None:
    """Print a table, and a JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few requests only")
    parser.add_argument("--vllm", type=Path, help="interpreter of an environment with vLLM")
    given = parser.parse_args()
    figures = measure(QUICK if given.quick else FULL, given.vllm)
    table = Table("figure", *figures, title=DTYPE)
    for key in figures["ours"]:
        table.add_row(key, *(f"{found[key]:.1f}" if key in found else "" for found in figures.values()))
    Console().print(table)
    print(json.dumps({name: {key: round(value, 2) for key, value in found.items()} for name, found in figures.items()}))


if __name__ == "__main__":
    main()
