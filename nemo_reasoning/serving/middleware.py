"""Around every request: its id, its log line, its errors, API keys and the limit of its body."""

import hashlib
import hmac
import json
import logging
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nemo_reasoning.errors import (
    EngineClosedError,
    EngineError,
    GenerationError,
    NemoReasoningError,
    RequestError,
)
from nemo_reasoning.inference.request import Completion, Delta, Event
from nemo_reasoning.serving.metrics import Metrics
from nemo_reasoning.serving.responses import error_body

LOGGER = logging.getLogger("nemo_reasoning.serving")


@dataclass(slots=True)
class RequestLog:
    """What is known of a request, for its log line and the metrics.

    Attributes:
        id: Sent back as X-Request-ID.
        begun: When it came, on the monotonic clock.
        facts: For the log; prompts are not among them unless the operator asks for it.
    """

    id: str = field(default_factory=lambda: f"req-{uuid.uuid4().hex}")
    begun: float = field(default_factory=time.monotonic)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Time since it came."""
        return time.monotonic() - self.begun

    def saw(self, event: Event | None) -> None:
        """Note when the first text came."""
        if isinstance(event, Delta) and "first_token_s" not in self.facts:
            self.facts["first_token_s"] = round(self.seconds, 4)

    def finished(self, completions: Iterable[Completion], *, prompt_tokens: int, metrics: Metrics) -> None:
        """Note what was written, and count it."""
        done, model = list(completions), self.facts["model"]
        counts = {
            "prompt": prompt_tokens,
            "completion": sum(completion.completion_tokens for completion in done),
            "reasoning": sum(completion.reasoning_tokens for completion in done),
        }
        for kind, count in counts.items():
            metrics.tokens.labels(model, kind).inc(count)
            self.facts[f"{kind}_tokens"] = count
        self.facts["finish_reason"] = [completion.finish_reason for completion in done]
        metrics.duration.labels(model).observe(self.seconds)
        if "first_token_s" in self.facts:
            metrics.first_token.labels(model).observe(self.facts["first_token_s"])

    def log(self, *, status: int) -> None:
        """Write the log line, one JSON object."""
        line = {"request": self.id, "status": status, "seconds": round(self.seconds, 4), **self.facts}
        LOGGER.info(json.dumps(line, ensure_ascii=False))


def request_log(request: Request) -> RequestLog:
    """Return the log that the outermost layer opened for a request."""
    log: RequestLog = request.scope["log"]
    return log


class ErrorReply(NamedTuple):
    """An error as it is answered.

    Attributes:
        status: Of HTTP.
        content: The body.
    """

    status: int
    content: dict[str, Any]


_KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def reply(status: int, message: str, *, code: str, param: str | None = None) -> ErrorReply:
    """Return an error in OpenAI's form, of the type that belongs to its status."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return ErrorReply(status, error_body(message, kind=kind, code=code, param=param))


def error_reply(error: NemoReasoningError) -> ErrorReply:
    """Return how an error of ours is answered: an engine refuses what a client asks, or fails."""
    if isinstance(error, RequestError):
        return reply(error.status, str(error), code=error.code, param=error.param)
    if isinstance(error, EngineClosedError):
        return reply(503, str(error), code="stopping")
    if isinstance(error, GenerationError) or not isinstance(error, EngineError):
        return reply(500, str(error), code="generation_failed")
    return reply(400, str(error), code="invalid_request")


GUARDED = ("/v1/", "/metrics", "/openapi.json")  # with a key; the page and the health of the service are open


class RequestMiddleware:
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
        log = scope["log"] = RequestLog()
        log.facts |= {"method": scope["method"], "path": scope["path"]}
        if scope["method"] == "HEAD":  # as GET: the server sends no body
            scope = {**scope, "method": "GET"}
        status = 499  # what nobody is told: the client left before the answer

        async def numbered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = log.id
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
            log.log(status=status)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if self._keys and scope["path"].startswith(GUARDED) and not self._knows(headers.get("authorization", "")):
            message = "the API key is missing or wrong; send it as `Authorization: Bearer KEY`"
            error = reply(401, message, code="invalid_api_key")
            return JSONResponse(error.content, error.status, {"WWW-Authenticate": "Bearer"})
        if headers.get("content-encoding", "identity").lower() != "identity":
            error = reply(415, "the body is compressed; send it as it is, without Content-Encoding", code="compressed")
            return JSONResponse(error.content, error.status)
        length = headers.get("content-length", "0")
        if length.isdecimal() and float(length) > self._max_body_bytes:
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
