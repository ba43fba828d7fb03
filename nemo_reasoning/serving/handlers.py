"""The two endpoints that generate: from the client's request to whole or streamed answers."""

import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from nemo_reasoning.errors import ContextLengthError, EngineError, RequestError
from nemo_reasoning.inference.request import Completion, Delta, GenerationRequest
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.sampling import Sampling
from nemo_reasoning.serving.admission import Admission, Numbered
from nemo_reasoning.serving.middleware import RequestLog, request_log
from nemo_reasoning.serving.protocol import ChatRequest, CompletionRequest, Sampled
from nemo_reasoning.serving.responses import Format, stamp, usage
from nemo_reasoning.serving.sse import HEARTBEAT, EventStream, event, unless_gone
from nemo_reasoning.serving.thinking_options import plain_messages, prefill, thinking_of
from nemo_reasoning.serving.tools import call_schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What holds when a request does not say.

    Attributes:
        mode: Of thinking.
        sampling: By mode.
        efforts: Budget of thinking tokens by effort: low, medium, high.
    """

    mode: Mode
    sampling: Mapping[Mode, Sampling]
    efforts: Mapping[str, int]


def chat_generation(body: ChatRequest, *, adapter: str | None, defaults: Defaults) -> GenerationRequest:
    """Return what the engine is to do for the first choice of a chat.

    Raises:
        RequestError: Wishes about the thinking contradict each other.
        EngineError: A value is out of range.
    """
    thinking = thinking_of(body, efforts=defaults.efforts)
    mode = thinking.mode or defaults.mode
    return GenerationRequest(
        messages=plain_messages(body),
        mode=mode,
        prefill=prefill(body),
        tools=offered_tools(body),
        schema=_schema(body),
        logit_bias=body.biases,
        max_new_tokens=body.limit or 1,
        thinking_budget=None if mode == "off" else thinking.budget,
        min_thinking=thinking.least,
        sampling=body.sampling(defaults.sampling[mode]),
        seed=seed_of(body.seed),
        stop=body.stops,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        adapter=adapter,
    )


def offered_tools(body: ChatRequest) -> tuple[dict[str, Any], ...]:
    """Return the tools a model may call."""
    return () if body.tool_choice == "none" else tuple(tool.model_dump(exclude_none=True) for tool in body.tools)


def _schema(body: ChatRequest) -> str | None:
    """Return the JSON schema of the answer, if it has one: a form, or a call that has to be made."""
    if body.must_call:
        try:
            return call_schema([tool.model_dump(exclude_none=True) for tool in body.must_call])
        except RecursionError as error:
            raise EngineError("the parameters of the tools are nested too deeply; give plainer schemas") from error
    return body.response_format.schema_text if body.response_format else None


def seed_of(given: int | None) -> int:
    """Return the seed a request gives, or a new one."""
    return secrets.randbits(62) if given is None else given


def text_generations(body: CompletionRequest, *, adapter: str | None) -> list[GenerationRequest]:
    """Return what the engine is to do for each choice: those of the first prompt, of the second, and so on.

    Raises:
        EngineError: A value is out of range.
    """
    seed = seed_of(body.seed)
    return [
        GenerationRequest(
            prompt=prompt,
            mode="off",
            max_new_tokens=body.max_tokens,
            sampling=body.sampling(Sampling(temperature=1.0)),
            seed=seed + number,
            stop=body.stops,
            logprobs=(body.logprobs or 0) if body.echo else body.logprobs,
            echo=body.echo,
            logit_bias=body.biases,
            adapter=adapter,
        )
        for prompt in body.prompt
        for number in range(body.n)
    ]


class Answer:
    """The completions of a request on their way to its client."""

    def __init__(self, body: Sampled, *, form: Format, log: RequestLog, admission: Admission) -> None:
        """Take what was asked, how the answer looks, and who keeps account."""
        self._body, self._form, self._log, self._admission = body, form, log, admission
        self._done: dict[int, Completion] = {}
        self._ended = False

    def _saw(self, numbered: Numbered | None) -> None:
        if numbered is not None:
            self._log.saw(numbered[1])
            if isinstance(numbered[1], Completion):
                self._done[numbered[0]] = numbered[1]

    def _close(self) -> dict[str, Any]:
        """Keep account, and return the usage."""
        self._ended = True
        completions = [self._done[number] for number in sorted(self._done)]
        prompt_tokens = sum(completion.prompt_tokens for completion in completions[:: self._body.n])
        self._log.finished(completions, prompt_tokens=prompt_tokens, metrics=self._admission.metrics)
        return usage(prompt_tokens, completions)

    def leave(self) -> None:
        """Count the request if it has no whole answer."""
        if not self._ended:
            self._admission.metrics.unfinished.labels(self._body.model).inc()

    async def whole(self, events: AsyncIterator[Numbered | None]) -> JSONResponse:
        """Return the answer when all choices are finished."""
        async for numbered in events:
            self._saw(numbered)
        head = stamp(self._form.prefix, kind=self._form.kinds[0], model=self._body.model)
        choices = [self._form.whole(number, self._done[number]) for number in sorted(self._done)]
        return JSONResponse(head | {"choices": choices, "usage": self._close()})

    async def parts(
        self, first: Numbered | None, events: AsyncIterator[Numbered | None], *, choices: int
    ) -> AsyncIterator[str]:
        """Yield the answer piece by piece as server-sent events."""
        head = stamp(self._form.prefix, kind=self._form.kinds[1], model=self._body.model)
        for number in range(choices):
            if (begin := self._form.begin(number)) is not None:
                yield event(head | {"choices": [begin]})
        yield self._part(first, head)
        async for numbered in events:
            yield self._part(numbered, head)
        counted = self._close()
        if self._body.stream_options is not None and self._body.stream_options.include_usage:
            yield event(head | {"choices": [], "usage": counted})

    def _part(self, numbered: Numbered | None, head: dict[str, Any]) -> str:
        self._saw(numbered)
        if numbered is None:
            return HEARTBEAT
        number, found = numbered
        form = self._form
        choice = form.part(number, found) if isinstance(found, Delta) else form.end(number, self._done[number])
        return event(head | {"choices": [choice]})


async def answer(
    asked: Sequence[GenerationRequest],
    body: ChatRequest | CompletionRequest,
    request: Request,
    *,
    form: Format,
    admission: Admission,
    limited: bool = True,
) -> Response:
    """Run the completions of a request, and return the answer or the stream of it.

    Args:
        asked: The completions.
        body: What the client sent.
        request: How it came.
        form: How the choices look.
        admission: Who lets requests in.
        limited: Whether the client says how many tokens to write; else the service does.

    Raises:
        RequestError: There is no place for it, or it takes too long.
        EngineError: It cannot be served, or fails.
        ClientGone: The client has left.
    """
    made = Answer(body, form=form, log=request_log(request), admission=admission)
    async with AsyncExitStack() as stack:
        stack.enter_context(_named_context(body))
        stack.enter_context(admission.place(len(asked)))
        stack.callback(made.leave)
        if not limited:
            asked = await admission.with_limit(asked)
        events = await stack.enter_async_context(aclosing(admission.events(asked)))
        if not body.stream:
            return await unless_gone(request, made.whole(events))
        first = await unless_gone(request, _first(events))
        parts = made.parts(first, events, choices=len(asked))
        return EventStream(parts, close=stack.pop_all().aclose)


@contextmanager
def _named_context(body: ChatRequest | CompletionRequest) -> Iterator[None]:
    """Name the client's own field where prompt and completion exceed the context."""
    try:
        yield
    except ContextLengthError as error:
        raise RequestError(str(error), code="context_length_exceeded", param=body.too_long(error)) from error


async def _first(events: AsyncIterator[Numbered | None]) -> Numbered | None:
    return await anext(events)
