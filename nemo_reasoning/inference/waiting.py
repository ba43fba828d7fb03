"""Wait for what an engine reports."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference.engine import Completion, Delta, Event, Generation, GenerationRequest

Submit = Callable[[GenerationRequest, Callable[[Event], None]], Generation]
Item = TypeVar("Item")


def _nothing() -> bool:
    return False


def _next(events: "SimpleQueue[Item]", drive: Callable[[], bool]) -> Item:
    while events.empty() and drive():
        pass
    return events.get()


def generate_all(
    submit: Submit, requests: Sequence[GenerationRequest], *, drive: Callable[[], bool] = _nothing
) -> list[Completion]:
    """Return one completion per request, in their order.

    Args:
        submit: Of an engine.
        requests: What to ask.
        drive: Does a little of the engine's work, and says whether it is the caller's to do.

    Raises:
        EngineError: A request cannot be served; the others are cancelled.
    """
    events: SimpleQueue[tuple[int, Completion | EngineError]] = SimpleQueue()
    running: list[Generation] = []
    done: dict[int, Completion] = {}
    try:
        for index, request in enumerate(requests):
            running.append(submit(request, partial(_keep_end, events, index)))
        while len(done) < len(requests):
            index, end = _next(events, drive)
            if isinstance(end, EngineError):
                raise end
            done[index] = end
    finally:
        for generation in running:
            generation.cancel()  # does nothing to those that have ended
    return [done[index] for index in range(len(requests))]


def _keep_end(events: "SimpleQueue[tuple[int, Completion | EngineError]]", index: int, event: Event) -> None:
    if not isinstance(event, Delta):
        events.put((index, event))


def stream_one(
    submit: Submit, request: GenerationRequest, *, drive: Callable[[], bool] = _nothing
) -> Iterator[Delta | Completion]:
    """Yield what a model writes as it does, the whole completion last; leaving the loop cancels it.

    Args:
        submit: Of an engine.
        request: What to ask.
        drive: Does a little of the engine's work, and says whether it is the caller's to do.

    Raises:
        EngineError: The request cannot be served.
    """
    events: SimpleQueue[Event] = SimpleQueue()
    generation = submit(request, events.put)
    try:
        while True:
            event = _next(events, drive)
            if isinstance(event, EngineError):
                raise event
            yield event
            if isinstance(event, Completion):
                return
    finally:
        generation.cancel()
