"""From settings to a running service."""

import signal
import socket
import sys
from pathlib import Path

from nemo_reasoning.config.inference import ServeSettings, ThinkingSettings
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.inference.open import open_engine
from nemo_reasoning.inference.sources import find_weights, line_up
from nemo_reasoning.serving.app import create_app
from nemo_reasoning.serving.chat import Defaults, Sampling
from nemo_reasoning.serving.desk import Desk, Limits
from nemo_reasoning.serving.server import Server, log_to_stderr


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
    main = find_weights(settings.checkpoint, cache_dir=cache_dir)
    main = main._replace(name=settings.name or main.name)
    others = {name: find_weights(source, cache_dir=cache_dir) for name, source in settings.adapters.items()}
    lineup = line_up(main, others)
    engine = open_engine(settings.engine, lineup, template=settings.template)
    desk = Desk(engine, models=lineup.names, limits=limits_of(settings))
    app = create_app(
        desk,
        defaults=defaults_of(settings.thinking, mode=settings.reasoning.value),
        api_keys=keys,
        max_body_bytes=settings.limits.body_bytes,
        cors_origins=settings.cors_origins,
        log_prompts=settings.log_prompts,
    )
    log_to_stderr()
    server = Server(
        app,
        desk=desk,
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
    on, off, efforts = thinking.sampling_on, thinking.sampling_off, thinking.efforts
    return Defaults(
        mode="on" if mode == "on" else "off",
        sampling={"on": Sampling(on.temperature, on.top_p), "off": Sampling(off.temperature, off.top_p)},
        efforts={"low": efforts.low, "medium": efforts.medium, "high": efforts.high},
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
