"""The service as an ASGI application."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from nemo_reasoning import __version__
from nemo_reasoning.errors import NemoReasoningError
from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.serving.admission import Admission
from nemo_reasoning.serving.handlers import ChatFormat, Defaults, TextFormat, answer, chat_generation, text_generations
from nemo_reasoning.serving.middleware import ErrorReply, RequestMiddleware, error_reply, reply, request_log
from nemo_reasoning.serving.protocol import ChatRequest, CompletionRequest
from nemo_reasoning.serving.sse import ClientGone

PAGE = Path(__file__).parent / "page" / "index.html"
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
)
_DOCUMENTED: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": {"type": "object"}}}}
    for status, text in {
        400: "The request contradicts itself, the schema or the model",
        401: "The API key is missing or wrong",
        404: "No such model",
        413: "The body is too large",
        429: "No place is free",
        503: "The service is stopping",
        504: "No end within the time limit",
    }.items()
}


def create_app(
    admission: Admission,
    *,
    defaults: Defaults,
    api_keys: Sequence[str],
    max_body_bytes: int,
    cors_origins: Sequence[str],
    log_prompts: bool,
) -> FastAPI:
    """Return the application.

    Args:
        admission: Takes requests to the engine.
        defaults: Of chats.
        api_keys: One of them has to come with each request to /v1; none lets everybody in.
        max_body_bytes: Of a request.
        cors_origins: Other origins whose pages may ask; "*" is all.
        log_prompts: Whether the log holds what is asked.
    """
    app = FastAPI(title="nemo-reasoning", version=__version__, docs_url=None, redoc_url=None)
    _add_answers(app, admission, defaults=defaults, log_prompts=log_prompts)
    _add_facts(app, admission)
    _add_errors(app, admission)
    app.add_middleware(RequestMiddleware, metrics=admission.metrics, api_keys=api_keys, max_body_bytes=max_body_bytes)
    if cors_origins:  # around the middleware: a browser asks for permission without a key
        app.add_middleware(CORSMiddleware, allow_origins=list(cors_origins), allow_methods=["*"], allow_headers=["*"])
    return app


def _add_answers(app: FastAPI, admission: Admission, *, defaults: Defaults, log_prompts: bool) -> None:
    def note(request: Request, model: str, asked: GenerationRequest, **facts: Any) -> None:
        log = request_log(request)
        log.facts |= {"model": model, "mode": asked.mode, "budget": asked.thinking_budget, **facts}
        if log_prompts:
            log.facts["prompt"] = asked.prompt or [message.to_dict() for message in asked.messages]

    @app.post("/v1/chat/completions", responses=_DOCUMENTED)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        asked = chat_generation(body, adapter=admission.adapter(body.model), defaults=defaults)
        note(request, body.model, asked, n=body.n, stream=body.stream)
        form, limited = ChatFormat(logprobs=body.logprobs), body.limit is not None
        return await answer(asked.choices(body.n), body, request, form=form, admission=admission, limited=limited)

    @app.post("/v1/completions", responses=_DOCUMENTED)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        asked = text_generations(body, adapter=admission.adapter(body.model))
        note(request, body.model, asked[0], n=len(asked), stream=body.stream)
        return await answer(
            asked, body, request, form=TextFormat(logprobs=body.logprobs is not None), admission=admission
        )


def _add_facts(app: FastAPI, admission: Admission) -> None:
    def model(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": admission.created, "owned_by": "nemo-reasoning"}

    @app.get("/v1/models", responses={401: _DOCUMENTED[401]})
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model(name) for name in admission.models]}

    @app.get("/v1/models/{name:path}", responses={401: _DOCUMENTED[401], 404: _DOCUMENTED[404]})
    async def one_model(name: str) -> dict[str, Any]:
        admission.adapter(name)
        return model(name)

    @app.get("/health", responses={503: _DOCUMENTED[503]})
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok"}) if admission.healthy else JSONResponse({"status": "engine closed"}, 503)

    @app.get("/ready", responses={503: _DOCUMENTED[503]})
    async def ready() -> JSONResponse:
        ready = admission.healthy and not admission.draining
        return JSONResponse({"status": "ready"}) if ready else JSONResponse({"status": "stopping"}, 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(admission.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE, headers={"Content-Security-Policy": _PAGE_POLICY, "Cache-Control": "no-cache"})


def _add_errors(app: FastAPI, admission: Admission) -> None:
    def sent(request: Request, error: ErrorReply) -> JSONResponse:
        request_log(request).facts["error"] = error.content["error"]["code"]
        headers = {"Retry-After": str(admission.limits.retry_after)} if error.status in (429, 503) else None
        return JSONResponse(error.content, error.status, headers)

    @app.exception_handler(NemoReasoningError)
    async def ours(request: Request, error: NemoReasoningError) -> JSONResponse:
        return sent(request, error_reply(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        message, param = _explain(error.errors())
        return sent(request, reply(400, message, code="invalid_request", param=param))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return sent(request, _http_reply(request, error))

    @app.exception_handler(ClientGone)
    async def gone(request: Request, error: ClientGone) -> Response:
        return Response(status_code=499)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log = request_log(request)
        message = f"the service failed; its log has more under {log.id}"
        failed = sent(request, reply(500, message, code="internal_error"))
        failed.headers["X-Request-ID"] = log.id  # this answer comes from outside of the middleware
        return failed


def _http_reply(request: Request, error: HTTPException) -> ErrorReply:
    """Word the errors of the framework."""
    known = {
        400: ("the body is nested too deeply or is no UTF-8; send a plain JSON object", "invalid_json"),
        404: (f"there is no {request.url.path} here; /openapi.json lists what is", "not_found"),
        405: (f"{request.method} does not work on {request.url.path}; /openapi.json lists what does", "wrong_method"),
    }
    message, code = known.get(error.status_code, (str(error.detail), "request_too_large"))
    return reply(error.status_code, message, code=code)


_REMEDIES = {"extra_forbidden": "unknown field; remove it", "missing": "is missing; send it"}
_FIELD = re.compile(r"\w+")  # what else stands in a place is pydantic's name of one of several types


def _explain(errors: Sequence[Any]) -> tuple[str, str | None]:
    """Return a message that names the fields at fault, and the first of them."""
    told, fields = [], []
    for error in errors[:4]:
        field = _field(error)
        fields.append(field)
        what = _REMEDIES.get(error["type"], error["msg"])
        if error["type"] == "too_long" and error["ctx"]["max_length"] == 0:
            what = "is not supported here; remove it"
        if error["type"] == "json_invalid":
            what = f"the body is no JSON: {error['ctx']['error']} at character {error['loc'][-1]}"
        elif error["type"] in ("model_attributes_type", "model_type"):
            what = "the body is no JSON object; send one, with Content-Type: application/json"
        given = _short(error.get("input"))
        told.append(f"{field}: {what}{given}" if field else what)
    return "; ".join(told), next((field for field in fields if field), None)


def _field(error: Any) -> str:
    """Return the place of an error as a client would write it."""
    *path, last = map(str, error["loc"][1:] or [""])
    named = [part for part in path if _FIELD.fullmatch(part)]
    if _FIELD.fullmatch(last) or error["type"] == "extra_forbidden":
        named.append(last)
    return ".".join(named)


def _short(value: Any) -> str:
    """Return a plain value as it was sent, unless it is long."""
    if not isinstance(value, str | int | float | bool):
        return ""
    text = json.dumps(value)
    return f" (got {text})" if len(text) <= 60 else ""
