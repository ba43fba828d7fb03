"""The base class of everything that continues dialogues."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference.request import Completion, Delta, Event, GenerationRequest

Report = Callable[[Event], None]
Item = TypeVar("Item")


class Generation:
    """A request that is being served.

    Attributes:
        cancelled: Whether nothing more is wanted of it.
    """

    def __init__(self, on_cancel: Callable[[], None] = lambda: None) -> None:
        """Take what to call when the request is cancelled."""
        self._on_cancel = on_cancel
        self.cancelled = False

    def cancel(self) -> None:
        """Give its place to others at the next token; nothing more is reported. After the end it does nothing."""
        self.cancelled = True
        self._on_cancel()


class Engine(ABC):
    """Continues dialogues; requests join and leave while others run.

    A subclass implements `submit`, `max_new_tokens_for` and `close`; the others are built on them.
    """

    @abstractmethod
    def submit(self, request: GenerationRequest, report: Report) -> Generation:
        """Start a request and return at once.

        Args:
            request: What to continue.
            report: Called with each delta, then with the completion or the error that ended the request. It is
                called on a thread of the engine, possibly before `submit` returns, and must not block.

        Raises:
            EngineError: The request cannot be served by this model, or the engine is closed.
        """

    @abstractmethod
    def max_new_tokens_for(self, request: GenerationRequest) -> int:
        """Return how many tokens may follow a request's prompt; what the request itself says is not looked at.

        Raises:
            EngineError: The prompt leaves no room, or there is no such adapter.
        """

    def context(self, adapter: str | None) -> int:
        """Return how many tokens of prompt and completion a model takes.

        Raises:
            EngineError: There is no such adapter, or only the server knows.
        """
        raise EngineError(f"{type(self).__name__} does not know the context of adapter={adapter}")

    @abstractmethod
    def close(self) -> None:
        """Fail what is running or waiting, and take no more requests."""

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests."""
        return False

    @property
    def load(self) -> tuple[int, int]:
        """How many requests run, and how many wait."""
        return 0, 0

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """Return one completion per request, in their order.

        Raises:
            EngineError: A request cannot be served; the others are cancelled.
        """
        events: SimpleQueue[tuple[int, Completion | EngineError]] = SimpleQueue()
        running: list[Generation] = []
        done: dict[int, Completion] = {}
        try:
            for index, request in enumerate(requests):
                running.append(self._queue(request, partial(_keep_end, events, index)))
            while len(done) < len(requests):
                index, end = self._next(events)
                if isinstance(end, EngineError):
                    raise end
                done[index] = end
        finally:
            for generation in running:
                generation.cancel()  # does nothing to those that have ended
        return [done[index] for index in range(len(requests))]

    def stream(self, request: GenerationRequest) -> Iterator[Delta | Completion]:
        """Yield what the model writes as it does, the whole completion last; leaving the loop cancels it.

        Raises:
            EngineError: The request cannot be served.
        """
        events: SimpleQueue[Event] = SimpleQueue()
        generation = self._queue(request, events.put)
        try:
            while True:
                event = self._next(events)
                if isinstance(event, EngineError):
                    raise event
                yield event
                if isinstance(event, Completion):
                    return
        finally:
            generation.cancel()

    def _queue(self, request: GenerationRequest, report: Report) -> Generation:
        """Start a request whose caller waits for its end."""
        return self.submit(request, report)

    def _drive(self) -> bool:
        """Do some work on the thread that waits, and return whether there may be more; not every engine does."""
        return False

    def _next(self, events: "SimpleQueue[Item]") -> Item:
        while events.empty() and self._drive():
            pass
        return events.get()


def _keep_end(events: "SimpleQueue[tuple[int, Completion | EngineError]]", index: int, event: Event) -> None:
    if not isinstance(event, Delta):
        events.put((index, event))
