"""Start the service on a free port, in a thread of the test process."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.reasoning.sampling import Sampling
from nemo_reasoning.serving.admission import Admission, Limits
from nemo_reasoning.serving.app import create_app
from nemo_reasoning.serving.handlers import Defaults
from nemo_reasoning.serving.server import Server

MODEL, QUESTION, TRACE, ANSWER = "tiny", "What is 2 times 21?", "2 * 20 = 40", "The answer is 42."
DEFAULTS = Defaults(
    mode="on",
    sampling={"on": Sampling(), "off": Sampling()},
    efforts={"minimal": 2, "low": 4, "medium": 16, "high": 64, "xhigh": 128},
)
LIMITS = Limits(capacity=40, max_new_tokens=120, max_choices=8, timeout=60.0, heartbeat=5.0, retry_after=7)


@dataclass
class Live:
    """A running service.

    Attributes:
        url: Where it listens.
        admission: What lets requests in.
        engine: What answers.
        server: What listens.
    """

    url: str
    admission: Admission
    engine: HFEngine
    server: Server

    def wait_until_idle(self) -> None:
        """Return when no completion runs or waits."""
        wait_for(lambda: self.engine.load == (0, 0) and self.admission._inside == 0)

    def metric(self, name: str, **labels: str) -> float:
        """Return a number of /metrics; 0 if it is not there yet."""
        return self.admission.metrics._registry.get_sample_value(f"nemo_reasoning_{name}", labels) or 0.0


def wait_for(condition: Callable[[], bool]) -> None:
    """Return when a condition holds; pytest's timeout ends the wait for one that never does."""
    while not condition():
        time.sleep(0.005)


@contextmanager
def serving(
    model: Path,
    *,
    api_keys: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
    max_body_bytes: int = 100_000,
    log_prompts: bool = False,
    batch_size: int = 16,
    grace_seconds: float = 20.0,
    adapters: dict[str, Path] | None = None,
    chat_template: str | None = None,
    **limits: Any,
) -> Iterator[Live]:
    """Serve a model until the block ends."""
    engine = HFEngine(
        model,
        dtype="float32",
        device="cpu",
        batch_size=batch_size,
        adapters=adapters,
        chat_template=chat_template,
    )
    admission = Admission(
        engine, models={MODEL: None} | {name: name for name in adapters or {}}, limits=replace(LIMITS, **limits)
    )
    app = create_app(
        admission,
        defaults=DEFAULTS,
        api_keys=api_keys,
        max_body_bytes=max_body_bytes,
        cors_origins=cors_origins,
        log_prompts=log_prompts,
    )
    server = Server(app, admission=admission, engine=engine, host="127.0.0.1", port=0, grace_seconds=grace_seconds)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive())
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Live(f"http://127.0.0.1:{port}", admission, engine, server)
    finally:
        server.should_exit = True
        thread.join()
