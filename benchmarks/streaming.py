"""Clients of a service that stream, for benchmarks/serve.py and benchmarks/serve_peers.py.

They share the cores with the service, and what they compute is taken from it: so they read HTTP by hand, and parse an
answer when it has come.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit


class ServiceError(Exception):
    """The service answered with an error, or ended an answer too early."""


@dataclass(frozen=True)
class Heard:
    """What a streaming client got: the answer, tokens, and seconds to the first piece."""

    answer: str
    tokens: int
    first: float


class Connection:
    """A connection that is kept for one request after the other."""

    def __init__(self, url: str) -> None:
        """Take the address of the service."""
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port or 80

    async def __aenter__(self) -> Self:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        self._writer.close()

    async def events(self, body: dict[str, Any]) -> AsyncIterator[tuple[float, bytes]]:
        """Ask for a chat; yield the data of each event and when it came, up to the one that ends the answer.

        Raises:
            ServiceError: The answer is no whole stream.
        """
        content = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        self._writer.write(head.encode() + content)
        status, *fields = (await self._reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        if status.split()[1] != b"200" or b"transfer-encoding: chunked" not in fields:
            raise ServiceError(status.decode())
        rest, ended = b"", False
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            *lines, rest = (rest + (await self._reader.readexactly(size + 2))[:-2]).split(b"\n\n")
            now = time.perf_counter()
            for line in lines:
                ended |= line == b"data: [DONE]"
                if line.startswith(b"data: {"):
                    yield now, line[6:]
        await self._reader.readuntil(b"\r\n")
        if not ended:
            raise ServiceError("the stream ended before its last event")


async def listen(connection: Connection, body: dict[str, Any], *, hang_up: int | None = None) -> Heard | None:
    """Stream an answer to its end; or stop reading after some events, and return None."""
    start, came = time.perf_counter(), list[tuple[float, bytes]]()
    async with aclosing(connection.events(body)) as events:
        async for event in events:
            came.append(event)
            if hang_up is not None and len(came) > hang_up:
                return None
    first, answer, tokens = 0.0, "", 0
    for when, data in came:
        chunk = json.loads(data)
        if chunk["choices"]:
            words = chunk["choices"][0]["delta"].get("content") or ""
            first = first or (when - start if words else 0.0)
            answer += words
        else:
            tokens = chunk["usage"]["completion_tokens"]
    return Heard(answer, tokens, first)


async def ask_in_turn(url: str, bodies: Sequence[dict[str, Any]]) -> list[Heard]:
    """Ask one request after the other."""
    async with Connection(url) as connection:
        return [heard for body in bodies if (heard := await listen(connection, body))]


async def load(url: str, bodies: Sequence[dict[str, Any]], *, clients: int) -> tuple[list[Heard], float]:
    """Let clients ask at the same time, each in turn; return what they heard, and the seconds it took."""
    start = time.perf_counter()
    shares = [bodies[number::clients] for number in range(clients)]
    heard = await asyncio.gather(*(ask_in_turn(url, share) for share in shares))
    return [each for group in heard for each in group], time.perf_counter() - start
