"""The service as an ASGI application."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from nemo_reasoning import __version__
from nemo_reasoning.errors import NemoReasoningError
from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.serving.admission import Admission
from nemo_reasoning.serving.handlers import Defaults, answer, chat_generation, text_generations
from nemo_reasoning.serving.middleware import LOGGER, ErrorReply, RequestMiddleware, error_reply, reply, request_log
from nemo_reasoning.serving.protocol import ChatRequest, CompletionRequest
from nemo_reasoning.serving.refusals import explain
from nemo_reasoning.serving.responses import ChatFormat, TextFormat
from nemo_reasoning.serving.sse import ClientGone

_PAGE = Path(__file__).parent / "page"
_SCRIPTS = ("marked.umd.js", "maths.js", "markdown.js", "chat.js")
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

    named: set[str] = set()  # ignored fields that the log knows already

    @app.post("/v1/chat/completions", responses=_DOCUMENTED)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        asked = chat_generation(body, adapter=admission.adapter(body.model), defaults=defaults)
        note(request, body.model, asked, n=body.n, stream=body.stream)
        if new := body.ignored - named:
            named.update(new)
            LOGGER.warning(json.dumps({"ignored": sorted(new), "note": "not understood, without effect; named once"}))
        tools = [tool["function"]["name"] for tool in asked.tools]
        form, limited = ChatFormat(logprobs=body.logprobs, tools=tools), body.limit is not None
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
        facts = {"id": name, "object": "model", "created": admission.created, "owned_by": "nemo-reasoning"}
        return facts | {"max_model_len": admission.context(name)}

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

    whole = chat_page()

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(whole, headers={"Content-Security-Policy": _PAGE_POLICY, "Cache-Control": "no-cache"})


def chat_page() -> str:
    """Return the chat page with its scripts inside, so that a browser asks for nothing else."""
    page = (_PAGE / "index.html").read_text(encoding="utf-8")
    for name in _SCRIPTS:
        page = page.replace(f"/*{name}*/", (_PAGE / name).read_text(encoding="utf-8"))
    return page


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
        message, param = explain(error.errors())
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


def _unreadable(cause: BaseException | None) -> str:
    """Say why a body could not be read as JSON."""
    if isinstance(cause, UnicodeDecodeError):
        return "the body is no UTF-8; send a JSON object in UTF-8"
    if isinstance(cause, RecursionError):
        return "the body is nested too deeply; send a plain JSON object"
    return "the body cannot be read as JSON, such as a number of thousands of digits; send a plain JSON object"


def _http_reply(request: Request, error: HTTPException) -> ErrorReply:
    """Word the errors of the framework."""
    known = {
        400: (_unreadable(error.__cause__), "invalid_json"),
        404: (f"there is no {request.url.path} here; /openapi.json lists what is", "not_found"),
        405: (f"{request.method} does not work on {request.url.path}; /openapi.json lists what does", "wrong_method"),
    }
    message, code = known.get(error.status_code, (str(error.detail), "request_too_large"))
    return reply(error.status_code, message, code=code)
