"""Workers on a Ray cluster: what a lost process or machine had begun is begun again on those that are left."""

import os
import pickle
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from nemo_reasoning.artifacts import write_text
from nemo_reasoning.data.prepare.executors import in_order, load
from nemo_reasoning.errors import DataError, NemoReasoningError

Input = TypeVar("Input")
Output = TypeVar("Output")
_ADDRESS, _HERE, _MARK = "RAY_ADDRESS", "local", ".cluster"
_ATTEMPTS = 5  # at one input: it may be what kills its workers
_WAITING = 4  # finished or queued inputs of each core
_REACH_SECONDS = 20


class _Home(NamedTuple):
    """The folder that all workers write to, and what its mark says."""

    folder: Path
    word: str


_home: _Home | None = None
_loaded: tuple[bytes, Callable[[Any], Any]] | None = None  # of a worker: the function it had last


@contextmanager
def joined(folder: Path) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names for the block, or start one on this machine.

    Args:
        folder: Where the workers write; every machine of the cluster has to see it.

    Raises:
        DataError: The cluster cannot be joined.
    """
    global _home
    import ray

    own = not ray.is_initialized()
    if own:
        where = os.environ.get(_ADDRESS) or _HERE
        try:
            _reach(where)
            ray.init(where, log_to_driver=False, include_dashboard=False)
        except Exception as error:  # Ray's own have no common base
            raise DataError(
                f"data.engine=ray: the cluster at {_ADDRESS}={where} cannot be used ({_first_line(error)}); `ray "
                f"status` tells how it is, and without {_ADDRESS} one is started on this machine"
            ) from error
    _home = _Home(folder, secrets.token_hex())
    write_text(folder / _MARK, _home.word)
    try:
        yield
    finally:
        _home = None
        if own:
            ray.shutdown()


def _reach(address: str) -> None:
    """Fail at once where nothing listens at an address, which Ray would wait for without end."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()


def run(function: Callable[[Input], Output], inputs: Sequence[Input], *, workers: int | None) -> Iterator[Output]:
    """Yield the function's result for each input, in their order, as `executors.run`; a cluster has to be joined."""
    import ray

    assert _home is not None
    home, pickled = _home, pickle.dumps(function)
    task = ray.remote(max_retries=_ATTEMPTS - 1)(_compute)
    shipped = [ray.put(pickled)]  # within a list: a worker that has the function does not fetch it again
    most = workers or _WAITING * max(1, int(ray.cluster_resources().get("CPU", 1)))
    yield from in_order(
        inputs, lambda value: task.remote(home, shipped, pickle.dumps(value)), _result, ray.cancel, most=most
    )


def _result(job: Any) -> Any:
    """Return what a worker computed.

    Raises:
        DataError: Several of them were killed over it.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return pickle.loads(ray.get(job))  # noqa: S301 - of a worker of ours
    except RayTaskError as error:
        if isinstance(error.cause, ModuleNotFoundError):
            raise DataError(
                f"a machine of the Ray cluster lacks {error.cause.name}; install nemo-reasoning on all of them"
            ) from error
        raise error.cause from None
    except RayError as error:
        raise DataError(
            f"{_ATTEMPTS} workers were lost over the same part of the rows ({_first_line(error)}); `ray status` and "
            "Ray's logs tell more, fewer rows in a part are data.shard_mb; run again: finished parts are kept"
        ) from error


def _compute(home: _Home, function: list[Any], value: bytes) -> bytes:
    """Run in a worker: the function, which is fetched and made ready at its first input."""
    global _loaded
    import ray

    key, node = function[0].binary(), ray.util.get_node_ip_address()
    if _loaded is None or _loaded[0] != key:
        _check_shared(home, node)
        _loaded = key, load(ray.get(function[0]))
    try:
        return pickle.dumps(_loaded[1](pickle.loads(value)))  # noqa: S301 - of the process that asks
    except NemoReasoningError as error:
        raise type(error)(f"on {node}: {error}") from error


def _check_shared(home: _Home, node: str) -> None:
    """Refuse to write where nobody else would see it.

    Raises:
        DataError: This machine has another folder, or none, under the name.
    """
    mark = home.folder / _MARK
    if not mark.is_file() or mark.read_text(encoding="utf-8") != home.word:
        raise DataError(
            f"{node}, a machine of the Ray cluster, does not see {home.folder.parent} as the one does that prepares; "
            "write to a folder that all of them share, such as a network drive, or use data.engine=local"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
