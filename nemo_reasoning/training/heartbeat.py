"""Signs of life between the processes of a training, so that one that is gone is noticed, and named, within a minute.

A collective waits for a machine that lost its power, or its network, until the time limit of torch's process group:
half an hour with gloo, ten minutes with NCCL. It says neither who is missing nor on which machine.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_INTERVAL = 1.0  # seconds between signs of life, and between looks at those of others
_MEETING = 60.0  # seconds for all to connect
_LEAVE_TAKING = 3.0  # seconds for others to take note of a farewell
_ALIVE, _LEAVES, _FAILED = b".", b"q", b"x"


@dataclass
class Peer:
    """Another process.

    Attributes:
        name: For people: its rank and machine.
        channel: The connection with it.
        heard: `time.monotonic()` of its last sign.
    """

    name: str
    channel: socket.socket
    heard: float = field(default_factory=time.monotonic)


class Heartbeat:
    """The connections of the first process with all others, or of another one with the first.

    The first passes on who is gone. A thread sends and listens, whatever the process itself waits for.

    Attributes:
        lost: Who is gone, and how that was noticed; None if all are there.
        silent: Whether that was by silence, as of a machine that is gone.
    """

    def __init__(self, *, silence: float) -> None:
        """Know nobody yet.

        Args:
            silence: Seconds without a sign after which a process counts as gone.
        """
        self.lost: str | None = None
        self.silent = False
        self._silence = silence
        self._peers: list[Peer] = []
        self._noticed, self._over = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def receive(self, listener: socket.socket, *, key: bytes, count: int) -> None:
        """Take the connections of all others; the first process does.

        Args:
            listener: Where they call.
            key: What each of them knows; strangers are turned away.
            count: How many there are.

        Raises:
            TimeoutError: Not all of them came.
        """
        end = time.monotonic() + _MEETING
        while len(self._peers) < count:
            listener.settimeout(max(0.01, end - time.monotonic()))
            channel, _ = listener.accept()
            with contextlib.suppress(OSError):
                channel.settimeout(5)
                said = _line(channel)
                if said.startswith(key):
                    self._peers.append(Peer(said.removeprefix(key).decode(), channel))
                    continue
            channel.close()

    def call(self, address: tuple[str, int], *, key: bytes, name: str, first: str) -> None:
        """Connect with the first process.

        Args:
            address: Where it listens.
            key: What both know.
            name: Of this process, for people.
            first: Of the first process.

        Raises:
            OSError: It cannot be reached.
        """
        channel = socket.create_connection(address, timeout=_MEETING)
        channel.sendall(key + name.encode() + b"\n")
        self._peers.append(Peer(first, channel))

    def start(self, when_lost: Callable[[], None]) -> None:
        """Begin to send and to listen; `when_lost` is called once, by the thread that does."""
        for peer in self._peers:
            peer.channel.setblocking(False)
            peer.heard = time.monotonic()
        self._woken, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._beat, args=(when_lost,), name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self, *, failed: bool) -> None:
        """Take leave of the others, who are told if this process failed."""
        self._over.set()
        if self._thread is not None:
            self._waker.send(b".")
            self._thread.join()
            self._waker.close()
            self._woken.close()
            self._thread = None
        self._tell(_FAILED if failed else _LEAVES)
        end = time.monotonic() + (0 if failed or self.lost else _LEAVE_TAKING)
        for peer in self._peers:  # a connection closed with something unread would take the farewell with it
            with contextlib.suppress(OSError):
                peer.channel.settimeout(max(0.01, end - time.monotonic()))
                while (said := peer.channel.recv(4096)) and _LEAVES not in said:
                    pass
            peer.channel.close()
        self._peers = []

    def wait(self, seconds: float) -> str | None:
        """Return who is gone, if that is noticed within some seconds."""
        self._noticed.wait(seconds)
        return self.lost

    def _beat(self, when_lost: Callable[[], None]) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            for peer in self._peers:
                selector.register(peer.channel, selectors.EVENT_READ, peer)
            looked = due = time.monotonic()
            while not self._over.is_set() and self.lost is None:
                for key, _ in selector.select(max(0.0, due - time.monotonic())):
                    if key.data is not None and not self._listen(key.data):
                        selector.unregister(key.fileobj)
                        self._peers.remove(key.data)
                now = time.monotonic()
                if now >= due:
                    self._tell(_ALIVE)
                    self._miss(now, asleep=max(0.0, now - looked - 2 * _INTERVAL))
                    due = now + _INTERVAL
                looked = now
        if self.lost is not None:
            self._tell(f"{'!' if self.silent else '?'}{self.lost}\n".encode())
            self._noticed.set()
            when_lost()

    def _miss(self, now: float, *, asleep: float) -> None:
        """Look for those that have been silent for too long; nobody is to blame for what stood still here."""
        for peer in self._peers:
            peer.heard += asleep
            quiet = now - peer.heard
            if quiet > self._silence:
                self._lose(f"{peer.name} has given no sign of life for {quiet:.0f} s", silent=True)

    def _listen(self, peer: Peer) -> bool:
        """Take what a peer said; return whether it stays."""
        try:
            said = peer.channel.recv(4096)
        except BlockingIOError:
            return True
        except OSError:
            said = b""
        peer.heard = time.monotonic()
        for mark in (b"!", b"?"):
            if mark in said:
                self._lose(said.partition(mark)[2].partition(b"\n")[0].decode(), silent=mark == b"!")
                return True
        if _FAILED in said or not said:
            self._lose(f"{peer.name} {'failed' if said else 'ended'}", silent=False)
        if _LEAVES in said:
            with contextlib.suppress(OSError):
                peer.channel.send(_LEAVES)  # it waits for that
            return False
        return bool(said)

    def _lose(self, what: str, *, silent: bool) -> None:
        if self.lost is None:
            self.lost, self.silent = what, silent

    def _tell(self, message: bytes) -> None:
        for peer in self._peers:
            with contextlib.suppress(OSError):  # who is gone is noticed by what it does not say
                peer.channel.send(message)


def _line(channel: socket.socket) -> bytes:
    """Return what comes before the end of a line, of a kilobyte at most."""
    said = b""
    while not said.endswith(b"\n") and len(said) < 1024 and (more := channel.recv(1)):
        said += more
    return said.removesuffix(b"\n")
