"""Load the models and run the service: listen, log, and stop without cutting anybody off."""

import asyncio
import json
import logging
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from nemo_reasoning.config.inference import ServeSettings, ThinkingSettings
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.inference.checkpoints import resolve_checkpoint, serve_together
from nemo_reasoning.inference.engine import Engine
from nemo_reasoning.inference.load import load_engine
from nemo_reasoning.serving.admission import Admission, Limits
from nemo_reasoning.serving.app import create_app
from nemo_reasoning.serving.handlers import Defaults
from nemo_reasoning.serving.middleware import LOGGER


def serve(settings: ServeSettings) -> None:
    """Load the models and serve them until the process is told to stop.

    Raises:
        ConfigError: The key file is unreadable or empty, or another service has the port.
        EngineError: A model cannot be loaded.
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # else vLLM would outlive the start
    keys = read_keys(settings.api_key_file)
    check_port(settings.host, settings.port)
    cache_dir = Path(settings.cache_dir).expanduser()
    main = resolve_checkpoint(settings.checkpoint, cache_dir=cache_dir)
    adapters = settings.adapters or {}
    others = {name: resolve_checkpoint(source, cache_dir=cache_dir) for name, source in adapters.items()}
    files = serve_together(main.named(settings.name), others).with_template(settings.template)
    engine = load_engine(settings.engine, files)
    admission = Admission(engine, models=files.models, limits=limits_of(settings))
    app = create_app(
        admission,
        defaults=defaults_of(settings.thinking, mode=settings.reasoning.value),
        api_keys=keys,
        max_body_bytes=settings.limits.body_bytes,
        cors_origins=settings.cors_origins,
        log_prompts=settings.log_prompts,
    )
    log_to_stderr()
    server = Server(
        app,
        admission=admission,
        engine=engine,
        host=settings.host,
        port=settings.port,
        grace_seconds=settings.limits.grace_seconds,
    )
    try:
        server.run()
    finally:
        engine.close()  # also if the service could not start: vLLM would go on without it


def check_port(host: str, port: int) -> None:
    """Make sure that the service can listen, before a model is loaded for minutes.

    Raises:
        ConfigError: It cannot.
    """
    try:
        [(family, kind, _, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(f"host={host} port={port}: {error.strerror}; choose others") from error


def limits_of(settings: ServeSettings) -> Limits:
    """Return the limits of the service; there are as many places as run and wait."""
    limits = settings.limits
    return Limits(
        capacity=settings.engine.batch_size + limits.waiting,
        max_new_tokens=limits.max_new_tokens,
        max_choices=limits.choices,
        timeout=limits.timeout_seconds,
        heartbeat=limits.heartbeat_seconds,
        retry_after=limits.retry_after_seconds,
    )


def defaults_of(thinking: ThinkingSettings, *, mode: str) -> Defaults:
    """Return what holds when a request does not say."""
    return Defaults(
        mode="on" if mode == "on" else "off",
        sampling={"on": thinking.sampling_on, "off": thinking.sampling_off},
        efforts=dict(vars(thinking.efforts)),
    )


def read_keys(path: str | None) -> list[str]:
    """Return the API keys in a file, one a line.

    Raises:
        ConfigError: The file is unreadable, or holds none.
    """
    if path is None:
        return []
    try:
        keys = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError(f"api_key_file={path}: {error.strerror}; write a key a line there") from error
    if strange := [number for number, key in enumerate(keys, 1) if not key.isascii()]:
        raise ConfigError(f"api_key_file={path}: key {strange[0]} is not ASCII, which headers cannot carry; change it")
    if not keys:
        raise ConfigError(f"api_key_file={path} holds no key; write one a line, or leave api_key_file out")
    return keys


_CLOSING_SECONDS = 5  # for streams to tell their clients that the engine has been closed


class Server(uvicorn.Server):
    """Serves until SIGINT or SIGTERM, then lets running requests finish.

    New requests are refused from then on. What still runs after the grace period gets an error as its
    last event; nothing ends in the middle of a word without saying so.
    """

    def __init__(
        self, app: FastAPI, *, admission: Admission, engine: Engine, host: str, port: int, grace_seconds: float
    ) -> None:
        """Take the application, what it serves, where to listen, and how long to wait for running requests."""
        seconds = int(grace_seconds) + _CLOSING_SECONDS
        super().__init__(
            uvicorn.Config(
                app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=seconds
            )
        )
        self._admission, self._engine, self._grace_seconds = admission, engine, grace_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what runs, or fail it when the grace period is over."""
        self._admission.draining = True
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._grace_seconds, lambda: loop.run_in_executor(None, self._engine.close))
        await super().shutdown(sockets)
        timer.cancel()
        await asyncio.to_thread(self._engine.close)


def log_to_stderr() -> None:
    """Write the service's log lines to stderr, each a JSON object with its time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    for logger in (LOGGER, logging.getLogger("uvicorn.error")):
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


class _JsonLines(logging.Formatter):
    """A record as one line of JSON; one that is JSON already is completed."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        facts = json.loads(message) if record.name == LOGGER.name else {"message": message}
        head = {"time": datetime.fromtimestamp(record.created, UTC).isoformat(), "level": record.levelname}
        error = {"exception": self.formatException(record.exc_info)} if record.exc_info else {}
        return json.dumps(head | facts | error, ensure_ascii=False)
