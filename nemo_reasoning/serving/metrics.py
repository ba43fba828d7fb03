"""Numbers for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The service's counters, in a registry of their own.

    Attributes:
        requests: By path and status.
        tokens: By model and kind: prompt, completion, and reasoning, which is part of the completion.
        first_token: Seconds from the request to the first piece of text.
        duration: Seconds from the request to its end.
        unfinished: Requests without a whole answer, because the client left or time ran out, by model.
    """

    def __init__(self, *, running: Callable[[], float], waiting: Callable[[], float]) -> None:
        """Take what tells how many requests run and wait at the moment of asking."""
        self._registry = CollectorRegistry()
        prefix, registry = "nemo_reasoning", self._registry
        self.requests = Counter(f"{prefix}_requests", "Requests answered", ["path", "status"], registry=registry)
        self.tokens = Counter(f"{prefix}_tokens", "Tokens read and written", ["model", "kind"], registry=registry)
        self.unfinished = Counter(
            f"{prefix}_unfinished", "Requests without a whole answer", ["model"], registry=registry
        )
        self.first_token = Histogram(
            f"{prefix}_first_token_seconds", "Time to the first text", ["model"], buckets=_SECONDS, registry=registry
        )
        self.duration = Histogram(
            f"{prefix}_request_seconds", "Time to the end", ["model"], buckets=_SECONDS, registry=registry
        )
        Gauge(f"{prefix}_running", "Requests being decoded", registry=registry).set_function(running)
        Gauge(f"{prefix}_waiting", "Requests waiting for a place", registry=registry).set_function(waiting)

    def render(self) -> bytes:
        """Return all numbers in Prometheus' text format."""
        return generate_latest(self._registry)
