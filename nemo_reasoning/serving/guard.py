"""The outermost layer: numbers and logs requests, and refuses strangers and bodies that are too large."""

import hashlib
import hmac
from collections.abc import Sequence

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nemo_reasoning.serving.metrics import Metrics
from nemo_reasoning.serving.visit import Visit, reply

GUARDED = "/v1/"


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, api_keys: Sequence[str], max_body_bytes: int) -> None:
        """Take the application and its limits; without keys everybody may enter."""
        self._app, self._metrics, self._max_body_bytes = app, metrics, max_body_bytes
        self._keys = [_digest(key) for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = scope["visit"] = Visit()
        visit.facts |= {"method": scope["method"], "path": scope["path"]}
        status = 499  # what nobody is told: the client left before the answer

        async def numbered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = visit.id
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal(scope, receive, numbered)
            else:
                await self._app(scope, self._counted(receive), numbered)
        except Exception:
            status = 500 if status == 499 else status  # the framework answers with it, outside of this layer
            raise
        finally:
            self._metrics.requests.labels(_known(scope), status).inc()
            visit.log(status=status)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if self._keys and scope["path"].startswith(GUARDED) and not self._knows(headers.get("authorization", "")):
            message = "the API key is missing or wrong; send it as `Authorization: Bearer KEY`"
            error = reply(401, message, code="invalid_api_key")
            return JSONResponse(error.content, error.status, {"WWW-Authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._max_body_bytes:
            error = reply(413, self._too_large, code="request_too_large")
            return JSONResponse(error.content, error.status)
        return None

    def _knows(self, authorization: str) -> bool:
        """Compare with every key, each in constant time."""
        scheme, _, key = authorization.partition(" ")
        given = _digest(key.strip())
        found = [hmac.compare_digest(given, known) for known in self._keys]
        return any(found) and scheme.lower() == "bearer"

    @property
    def _too_large(self) -> str:
        return f"the body exceeds {self._max_body_bytes} bytes; send less"

    def _counted(self, receive: Receive) -> Receive:
        """Return a `receive` that refuses a body that turns out too large, whatever its headers say."""
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self._max_body_bytes:
                raise HTTPException(413, self._too_large)
            return message

        return counted


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _known(scope: Scope) -> str:
    """Return the path of the route, or one name for all others: a stranger must not fill the metrics."""
    route = scope.get("route")
    return getattr(route, "path", "other")
