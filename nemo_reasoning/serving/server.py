"""Run the service: listen, log, and stop without cutting anybody off."""

import asyncio
import json
import logging
import socket
import sys
from datetime import UTC, datetime

import uvicorn
from fastapi import FastAPI

from nemo_reasoning.inference.engine import StreamingEngine
from nemo_reasoning.serving.desk import Desk
from nemo_reasoning.serving.visit import LOGGER

_CLOSING_SECONDS = 5  # for streams to tell their clients that the engine has been closed


class Server(uvicorn.Server):
    """Serves until SIGINT or SIGTERM, then lets running requests finish.

    New requests are refused from then on. What still runs after the grace period gets an error as its
    last event; nothing ends in the middle of a word without saying so.
    """

    def __init__(
        self, app: FastAPI, *, desk: Desk, engine: StreamingEngine, host: str, port: int, grace_seconds: float
    ) -> None:
        """Take the application, what it serves, where to listen, and how long to wait for running requests."""
        seconds = int(grace_seconds) + _CLOSING_SECONDS
        super().__init__(
            uvicorn.Config(
                app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=seconds
            )
        )
        self._desk, self._engine, self._grace_seconds = desk, engine, grace_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what runs, or fail it when the grace period is over."""
        self._desk.draining = True
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
