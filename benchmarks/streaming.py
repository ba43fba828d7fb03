"""Clients of a service that stream, for benchmarks/serve.py and benchmarks/serve_peers.py."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Heard:
    """What a streaming client got: the answer, tokens, and seconds to the first piece; None if it hung up."""

    answer: str
    tokens: int
    first: float


async def listen(client: httpx.AsyncClient, body: dict[str, Any], *, hang_up: int | None = None) -> Heard | None:
    """Stream an answer to its end, or leave abruptly after some events."""
    start, first, answer, tokens, events = time.perf_counter(), 0.0, "", 0, 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            events += 1
            if hang_up is not None and events > hang_up:
                return None
            chunk = json.loads(line[6:])
            if chunk["choices"]:
                words = chunk["choices"][0]["delta"].get("content", "")
                first = first or (time.perf_counter() - start if words else 0.0)
                answer += words
            else:
                tokens = chunk["usage"]["completion_tokens"]
    return Heard(answer, tokens, first)


async def ask_in_turn(url: str, bodies: Sequence[dict[str, Any]]) -> list[Heard]:
    """Ask one request after the other."""
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        return [heard for body in bodies if (heard := await listen(client, body))]


async def load(url: str, bodies: Sequence[dict[str, Any]], *, clients: int) -> tuple[list[Heard], float]:
    """Let clients ask at the same time, each in turn; return what they heard, and the seconds it took."""
    start = time.perf_counter()
    shares = [bodies[number::clients] for number in range(clients)]
    heard = await asyncio.gather(*(ask_in_turn(url, share) for share in shares))
    return [each for group in heard for each in group], time.perf_counter() - start
