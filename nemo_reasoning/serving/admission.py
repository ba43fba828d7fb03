"""Between the routes and the engine: who may enter, what the engine reports, and who has left."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from nemo_reasoning.errors import EngineError, RequestError
from nemo_reasoning.inference.engine import Engine, Generation
from nemo_reasoning.inference.request import Completion, Event, GenerationRequest
from nemo_reasoning.serving.metrics import Metrics

Numbered = tuple[int, Event]
Inbox = asyncio.Queue[Numbered]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client may ask, and all of them together.

    Attributes:
        capacity: Completions that may run or wait at a time.
        max_new_tokens: Most tokens of a completion whose request names no limit.
        max_choices: Most choices of a request.
        timeout: Seconds a request may take.
        heartbeat: Seconds of silence after which a stream shows that it is alive.
        retry_after: Seconds a client is told to wait when there is no place.
    """

    capacity: int
    max_new_tokens: int
    max_choices: int
    timeout: float
    heartbeat: float
    retry_after: int


class Admission:
    """Takes requests in, as many as there is place for, and hands their events over to the event loop.

    Attributes:
        models: Adapter of each model name; None is the engine's own model.
        draining: Whether no more requests are taken.
    """

    def __init__(self, engine: Engine, *, models: Mapping[str, str | None], limits: Limits) -> None:
        """Take the engine, the names clients know its models by, and the limits."""
        self._engine, self.models, self.limits = engine, dict(models), limits
        self.metrics = Metrics(running=lambda: engine.load[0], waiting=lambda: engine.load[1])
        self.created = int(time.time())
        self.draining = False
        self._inside = 0
        self._mailbox: _Mailbox | None = None

    @property
    def healthy(self) -> bool:
        """Whether the engine still works."""
        return not self._engine.closed

    def adapter(self, model: str) -> str | None:
        """Return the adapter behind a model's name.

        Raises:
            RequestError: There is no such model.
        """
        if model not in self.models:
            known = ", ".join(self.models)
            raise RequestError(
                f"model {model!r} is not served here; served: {known}",
                status=404,
                code="model_not_found",
                param="model",
            )
        return self.models[model]

    def context(self, model: str) -> int:
        """Return how many tokens of prompt and completion a served model takes."""
        return self._engine.context(self.models[model])

    @contextmanager
    def place(self, count: int) -> Iterator[None]:
        """Occupy places for the completions of a request.

        Raises:
            RequestError: There are too few, or the service is about to stop.
        """
        most = min(self.limits.max_choices, self.limits.capacity)
        if count > most:
            raise RequestError(f"{count} completions in a request; ask for up to {most}", param="n")
        if self.draining:
            raise RequestError("the service is stopping; ask another one", status=503, code="stopping")
        if self._inside + count > self.limits.capacity:
            raise RequestError(
                f"all {self.limits.capacity} places are taken; ask again in {self.limits.retry_after} s",
                status=429,
                code="rate_limit_exceeded",
            )
        self._inside += count
        try:
            yield
        finally:
            self._inside -= count

    async def with_limit(self, choices: Sequence[GenerationRequest]) -> list[GenerationRequest]:
        """Return the choices of one prompt with the default limit, as far as the context has room.

        Raises:
            EngineError: The prompt leaves no room.
        """
        limit = await asyncio.to_thread(self._engine.max_new_tokens_for, choices[0])
        return [replace(choice, max_new_tokens=min(self.limits.max_new_tokens, limit)) for choice in choices]

    async def events(self, requests: Sequence[GenerationRequest]) -> AsyncGenerator[Numbered | None, None]:
        """Yield (number of the request, event) as they come; None after each silence of a heartbeat.

        When the caller stops iterating, what still runs is cancelled.

        Raises:
            EngineError: A request cannot be served, or its generation failed.
            RequestError: It takes too long.
        """
        inbox: Inbox = asyncio.Queue()
        self._mailbox = self._mailbox or _Mailbox()
        batch = _Batch(self._engine, requests, partial(self._mailbox.put, inbox))
        deadline = time.monotonic() + self.limits.timeout
        try:
            await asyncio.to_thread(batch.start)
            missing = len(requests)
            while missing:
                event = await self._next(inbox, deadline)
                if event is not None and isinstance(event[1], EngineError):
                    raise event[1]
                yield event
                missing -= event is not None and isinstance(event[1], Completion)
        finally:
            batch.cancel()

    async def _next(self, inbox: Inbox, deadline: float) -> Numbered | None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise RequestError(
                f"no end within {self.limits.timeout:g} s; ask for fewer tokens, or later",
                status=504,
                code="timeout",
            )
        try:
            async with asyncio.timeout(min(left, self.limits.heartbeat)):
                return await inbox.get()
        except TimeoutError:
            return None


class _Batch:
    """The completions of one request; they may be cancelled while they are being started."""

    def __init__(
        self, engine: Engine, requests: Sequence[GenerationRequest], report: Callable[[int, Event], None]
    ) -> None:
        self._engine, self._requests, self._report = engine, requests, report
        self._lock = threading.Lock()
        self._started: list[Generation] = []
        self._cancelled = False

    def start(self) -> None:
        for number, request in enumerate(self._requests):
            generation = self._engine.submit(request, partial(self._report, number))
            with self._lock:
                self._started.append(generation)
                cancelled = self._cancelled
            if cancelled:
                generation.cancel()

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            started = list(self._started)
        for generation in started:
            generation.cancel()


class _Mailbox:
    """Carries the events of all requests from the engine's thread to the event loop, together: waking it is dear."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._letters: deque[tuple[Inbox, Numbered]] = deque()

    def put(self, inbox: Inbox, number: int, event: Event) -> None:
        self._letters.append((inbox, (number, event)))
        if len(self._letters) == 1:
            with suppress(RuntimeError):  # the loop has been closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        while self._letters:
            inbox, letter = self._letters.popleft()
            inbox.put_nowait(letter)
