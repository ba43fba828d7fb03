"""Server-sent events, and clients that leave before the end."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from nemo_reasoning.errors import NemoReasoningError
from nemo_reasoning.serving.middleware import error_reply

Result = TypeVar("Result")
HEARTBEAT = ": still here\n\n"
DONE = "data: [DONE]\n\n"


class ClientGone(Exception):
    """The client closed the connection; nobody reads what would be answered."""


def event(value: dict[str, Any]) -> str:
    """Return an object as a server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(',', ':'))}\n\n"


class EventStream(StreamingResponse):
    """A stream of events that gives back what it holds, even if it never begins."""

    def __init__(self, parts: AsyncIterator[str], *, close: Callable[[], Awaitable[None]]) -> None:
        """Take the events as text, and what to call at the end."""
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_until_error(parts), media_type="text/event-stream", headers=headers)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; it is cancelled when the client leaves."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._close()


async def _until_error(parts: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield the parts; an error of ours becomes the last one, because the status has been sent already."""
    try:
        async for part in parts:
            yield part
    except NemoReasoningError as error:
        yield event(error_reply(error).content)
        return
    yield DONE


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`, or cancel it when the client closes the connection.

    Raises:
        ClientGone: It did.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return await task
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
