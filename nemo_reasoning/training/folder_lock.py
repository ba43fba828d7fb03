"""One process at a time writes to a folder; another one is told which."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nemo_reasoning.errors import CheckpointError

_LOCK, _HOLDER = ".lock", ".lock.json"


class FolderLock:
    """The right to write to a folder; a holder may take it twice."""

    def __init__(self, folder: Path) -> None:
        """Name the folder, which may be still to come."""
        self._folder, self._lock = folder, FileLock(folder / _LOCK)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder; the operating system gives it free when this process ends, however it ends.

        Raises:
            CheckpointError: Another process writes to it; says which.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise CheckpointError(
                f"{self._folder} is in use by {self._holder()}; wait for it to end, or stop it"
            ) from None
        try:
            if self._lock.lock_counter == 1:
                self._sign()
            yield
        finally:
            self._lock.release()

    def _sign(self) -> None:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        (self._folder / _HOLDER).write_text(json.dumps(holder), encoding="utf-8")

    def _holder(self) -> str:
        try:
            holder = json.loads((self._folder / _HOLDER).read_text(encoding="utf-8"))
            return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError):
            return "another process"
