"""The other processes of a training: a run ends when one of them is gone, instead of waiting for it."""

import os
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Self

import torch

from nemo_reasoning.errors import TrainingError, is_failure
from nemo_reasoning.training.callbacks.base import Callback, Loop, RunContext
from nemo_reasoning.training.failures import peer_lost
from nemo_reasoning.training.heartbeat import Heartbeat
from nemo_reasoning.training.process import TIME_IS_UP

_GRACE = 10.0  # seconds in which a process may leave by itself: a collective often fails at once


class Peers(Callback):
    """Keeps up the signs of life, and ends this process where a collective waits for one that is gone."""

    position = 0

    def __init__(self, heartbeat: Heartbeat, *, tell: Callable[[str], None]) -> None:
        """Take the heartbeat.

        Args:
            heartbeat: Of this process, connected to no other yet.
            tell: Shows the user, on every rank, who is gone and how to go on.
        """
        self._heartbeat, self._tell = heartbeat, tell
        self._failed, self._closed = False, threading.Event()

    @classmethod
    def from_run(cls, context: RunContext) -> Self | None:
        """Watch where several processes train, unless `trainer.peer_timeout` is null."""
        run, console, trainer = context.run, context.console, context.run.settings.trainer
        if context.heartbeat is None or trainer.devices * trainer.num_nodes == 1:
            return None
        return cls(
            context.heartbeat, tell=lambda lost: console.print(f"{TrainingError.__name__}: {peer_lost(run, lost)}")
        )

    def on_setup(self, loop: Loop) -> None:
        """Connect, as soon as processes can tell each other where."""
        if loop.world_size == 1:
            return
        name, key = f"rank {torch.distributed.get_rank()} on {socket.gethostname()}", secrets.token_hex(16)
        listener = _listener() if loop.first_rank else None
        port = listener.getsockname()[1] if listener else 0
        port, key, first = loop.first_says((port, key, name))
        try:
            if listener is not None:
                with listener:
                    self._heartbeat.receive(listener, key=key.encode(), count=loop.world_size - 1)
            else:
                address = os.environ["MASTER_ADDR"], port
                self._heartbeat.call(address, key=key.encode(), name=name, first=first)
        except OSError as error:
            raise TrainingError(
                f"{name}: the processes of this training cannot connect at port {port} of MASTER_ADDR="
                f"{os.environ.get('MASTER_ADDR')} ({error}); open the ports between these machines, or set "
                "trainer.peer_timeout=null, which leaves a machine that is gone unnoticed for long"
            ) from error
        self._heartbeat.start(self._leave)

    def on_error(self, loop: Loop, error: BaseException) -> None:
        """Have the others know that this process did not just leave."""
        self._failed = is_failure(error)

    def on_close(self, loop: Loop) -> None:
        """Take leave."""
        self._closed.set()
        self._heartbeat.stop(failed=self._failed)

    def _leave(self) -> None:
        """End this process, in the heartbeat's thread, unless it ends by itself."""
        if not self._closed.wait(_GRACE):
            self._tell(f"{self._heartbeat.lost}")
            os._exit(TIME_IS_UP if self._heartbeat.silent else 1)


def _listener() -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))
