"""A process that is gone is named to all others, one that takes leave is not, and strangers are turned away."""

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from nemo_reasoning.training import heartbeat
from nemo_reasoning.training.heartbeat import Heartbeat

KEY = b"0123456789abcdef"


class Ring:
    """Three processes' heartbeats in one, each with an event for the end."""

    def __init__(self, *, silence: float) -> None:
        self.beats = [Heartbeat(silence=silence) for _ in range(3)]
        self.left = [threading.Event() for _ in range(3)]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            stranger = socket.create_connection(address)
            stranger.sendall(b"GET / HTTP/1.0\n")
            for number in (1, 2):
                self.beats[number].call(address, key=KEY, name=f"rank {number} on b", first="rank 0 on a")
            self.beats[0].receive(listener, key=KEY, count=2)
            assert stranger.recv(1) == b""
            stranger.close()
        for beat, left in zip(self.beats, self.left, strict=True):
            beat.start(left.set)

    def said(self, *numbers: int) -> list[tuple[str | None, bool]]:
        assert all(self.left[number].wait(5) for number in numbers)
        return [(self.beats[number].lost, self.beats[number].silent) for number in numbers]


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ring]:
    monkeypatch.setattr(heartbeat, "_INTERVAL", 0.02)
    made = Ring(silence=0.4)
    yield made
    for beat in made.beats:
        beat.stop(failed=False)


def test_one_that_ended_is_named_to_all(ring: Ring) -> None:
    for peer in ring.beats[2]._peers:  # as the kernel does for a process that is killed
        peer.channel.shutdown(socket.SHUT_RDWR)
    assert ring.said(0, 1) == [("rank 2 on b ended", False)] * 2
    assert ring.beats[0].wait(0) == "rank 2 on b ended"


def test_one_that_failed_is_named_to_all(ring: Ring) -> None:
    ring.beats[1].stop(failed=True)
    assert ring.said(0, 2) == [("rank 1 on b failed", False)] * 2


def test_the_first_is_missed_by_all(ring: Ring) -> None:
    ring.beats[0].stop(failed=True)
    assert ring.said(1, 2) == [("rank 0 on a failed", False)] * 2


def test_silence_is_noticed(ring: Ring) -> None:
    ring.beats[2]._over.set()  # its machine is gone: connections stay, nothing comes
    assert ring.said(0, 1) == [("rank 2 on b has given no sign of life for 0 s", True)] * 2


def test_who_takes_leave_is_not_missed(ring: Ring) -> None:
    ring.beats[1].stop(failed=False)
    time.sleep(0.6)
    assert [beat.lost for beat in ring.beats] == [None] * 3
    ring.beats[0].stop(failed=False)
    time.sleep(0.1)
    assert ring.beats[2].lost is None


def test_a_process_that_stood_still_blames_nobody(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600)  # as after a laptop's lid
    monkeypatch.setattr(heartbeat, "time", clock)  # of this module alone: a service runs beside the tests
    time.sleep(0.2)
    assert [beat.lost for beat in ring.beats] == [None] * 3


def test_one_that_does_not_come_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_MEETING", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(TimeoutError):
        Heartbeat(silence=1).receive(listener, key=KEY, count=1)
