"""Run the completions of one request, and answer with all of them, or with each piece as it comes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, Protocol

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from nemo_reasoning.inference.engine import Completion, Delta, GenerationRequest
from nemo_reasoning.serving.desk import Desk, Numbered
from nemo_reasoning.serving.replies import stamp, usage
from nemo_reasoning.serving.schema import Sampled
from nemo_reasoning.serving.streams import HEARTBEAT, EventStream, event, unless_gone
from nemo_reasoning.serving.visit import Visit, visit_of


class Format(Protocol):
    """How the choices of an endpoint look."""

    prefix: str
    kinds: tuple[str, str]

    def whole(self, index: int, completion: Completion) -> dict[str, Any]:
        """Return a finished choice."""
        ...

    def begin(self, index: int) -> dict[str, Any] | None:
        """Return the first part of a streamed choice, if it has one."""
        ...

    def part(self, index: int, delta: Delta) -> dict[str, Any]:
        """Return what a delta adds to a streamed choice."""
        ...

    def end(self, index: int, completion: Completion) -> dict[str, Any]:
        """Return the last part of a streamed choice."""
        ...


class Answer:
    """The completions of a request on their way to its client."""

    def __init__(self, body: Sampled, *, form: Format, visit: Visit, desk: Desk) -> None:
        """Take what was asked, how the answer looks, and who keeps account."""
        self._body, self._form, self._visit, self._desk = body, form, visit, desk
        self._done: dict[int, Completion] = {}
        self._ended = False

    def _saw(self, numbered: Numbered | None) -> None:
        if numbered is not None:
            self._visit.saw(numbered[1])
            if isinstance(numbered[1], Completion):
                self._done[numbered[0]] = numbered[1]

    def _close(self) -> dict[str, Any]:
        """Keep account, and return the usage."""
        self._ended = True
        completions = [self._done[number] for number in sorted(self._done)]
        prompt_tokens = sum(completion.prompt_tokens for completion in completions[:: self._body.n])
        self._visit.finished(completions, prompt_tokens=prompt_tokens, metrics=self._desk.metrics)
        return usage(prompt_tokens, completions)

    def leave(self) -> None:
        """Count the request if it has no whole answer."""
        if not self._ended:
            self._desk.metrics.unfinished.labels(self._body.model).inc()

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
    body: Sampled,
    request: Request,
    *,
    form: Format,
    desk: Desk,
    limited: bool = True,
) -> Response:
    """Run the completions of a request, and return the answer or the stream of it.

    Args:
        asked: The completions.
        body: What the client sent.
        request: How it came.
        form: How the choices look.
        desk: Who lets requests in.
        limited: Whether the client says how many tokens to write; else the service does.

    Raises:
        RequestError: There is no place for it, or it takes too long.
        EngineError: It cannot be served, or fails.
        ClientGone: The client has left.
    """
    made = Answer(body, form=form, visit=visit_of(request), desk=desk)
    async with AsyncExitStack() as stack:
        stack.enter_context(desk.place(len(asked)))
        stack.callback(made.leave)
        if not limited:
            asked = await desk.with_limit(asked)
        events = await stack.enter_async_context(aclosing(desk.events(asked)))
        if not body.stream:
            return await unless_gone(request, made.whole(events))
        first = await unless_gone(request, _first(events))
        parts = made.parts(first, events, choices=len(asked))
        return EventStream(parts, close=stack.pop_all().aclose)


async def _first(events: AsyncIterator[Numbered | None]) -> Numbered | None:
    return await anext(events)
