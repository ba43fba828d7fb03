"""One request on its way through the service: its number, its log line, and its errors."""

import json
import logging
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastapi import Request

from nemo_reasoning.errors import EngineClosedError, EngineError, GenerationError, NemoReasoningError, RequestError
from nemo_reasoning.inference.engine import Completion, Delta, Event
from nemo_reasoning.serving.metrics import Metrics
from nemo_reasoning.serving.replies import error_body

LOGGER = logging.getLogger("nemo_reasoning.serving")


@dataclass(slots=True)
class Visit:
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


def visit_of(request: Request) -> Visit:
    """Return the visit that the outermost layer opened for a request."""
    visit: Visit = request.scope["visit"]
    return visit


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
