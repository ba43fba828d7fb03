"""An end for computations that may take forever."""

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SECONDS = 10.0
_spent = threading.local()


class OutOfTime(BaseException):
    """A proof takes too long; no exception that a library would catch."""


def start_clock() -> None:
    """Let the blocks that follow in this thread take ten seconds together."""
    _spent.seconds = 0.0


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise OutOfTime in this thread, whichever it is, when it and those since `start_clock` take too long.

    It interrupts Python code only, so single operations have to be bounded by their sizes.
    """
    thread, done = threading.get_ident(), threading.Event()
    lock, start = threading.Lock(), time.monotonic()
    left = _SECONDS - getattr(_spent, "seconds", 0.0)
    if left <= 0:
        raise OutOfTime

    def interrupt() -> None:
        wait = left
        while not done.wait(wait):
            with lock:
                if not done.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(OutOfTime))
            wait = 0.2  # again, should somebody have caught it

    watch = threading.Thread(target=interrupt, daemon=True)
    watch.start()
    try:
        yield
    finally:
        with lock:
            done.set()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)
        watch.join()
        _spent.seconds = _SECONDS - left + time.monotonic() - start
