"""Who is served when: requests are taken into the batch, stepped, and let go."""

import atexit
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from nemo_reasoning.errors import EngineClosedError, EngineError
from nemo_reasoning.inference.engine import Generation
from nemo_reasoning.inference.hf.batch import RunningBatch
from nemo_reasoning.inference.hf.row import Row, generation_error
from nemo_reasoning.inference.sequence import TokenSequence


class Scheduler:
    """Takes requests into a batch and lets them go, a turn for each token.

    Turns are driven by a thread of its own once `start` was called, and before that by whoever waits for
    an answer: with two threads that compute, the OpenMP of a small machine goes to sleep between any two
    operations, which costs a third of the speed.
    """

    def __init__(
        self, batch: RunningBatch, *, threads: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """Take the batch, which nobody else may touch from now on, and what holds its threads during a turn."""
        self._batch, self._threads = batch, threads
        self._changed = threading.Condition()
        self._driving = threading.Lock()
        self._waiting: deque[tuple[Row, Generation]] = deque()
        self._running: dict[Row, Generation] = {}
        self._closed = self._cancelled = False
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Requests that have no place in the batch yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._running)

    @property
    def closed(self) -> bool:
        """Whether no more requests are taken."""
        return self._closed

    def submit(self, sequence: TokenSequence, *, adapter: int) -> Generation:
        """Queue a request.

        Raises:
            EngineError: The engine is closed, or the request does not fit into the cache's memory.
        """
        row, generation = Row(sequence, adapter), Generation(self._note_cancel)
        if not self._batch.fits_alone(row.most):
            raise EngineError(
                f"{row.most} tokens of prompt and completion do not fit into the engine's memory; "
                "ask for fewer tokens, or raise cache_gb"
            )
        with self._changed:
            if self._closed:
                raise EngineClosedError("the engine is closed; start another one")
            self._waiting.append((row, generation))
            self._changed.notify()
        return generation

    @property
    def started(self) -> bool:
        """Whether a thread drives the turns."""
        return self._thread is not None

    def start(self) -> None:
        """Let a thread drive the turns from now on; it sleeps while there is nothing to do."""
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
                self._thread.start()
                atexit.register(self.close)  # a thread that computes while Python ends aborts the process

    def close(self) -> None:
        """Fail every request and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
            atexit.unregister(self.close)
        self.turn()

    def _note_cancel(self) -> None:
        with self._changed:
            self._cancelled = True
            self._changed.notify()

    def _run(self) -> None:
        try:
            while not self._closed:
                self.turn()
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._waiting or self._running)
        finally:
            self._closed = True
            self.turn()

    def turn(self) -> None:
        """Write one token of every request that has a place; fail them all when the engine is closed."""
        with self._driving, torch.inference_mode(), self._threads():
            if self._closed:
                self._fail_all(EngineClosedError("the engine was closed before the end; ask again"))
            else:
                self._admit()
                self._step()

    def _admit(self) -> None:
        """Move waiting requests into the batch, oldest first."""
        with self._changed:
            if self._cancelled:
                self._waiting = deque(pair for pair in self._waiting if not pair[1].cancelled)
                self._cancelled = False
            while self._waiting and self._batch.fits(self._waiting[0][0]):
                row, generation = self._waiting.popleft()
                self._running[row] = generation
                self._batch.join(row)

    def _let_go(self) -> None:
        for row in [row for row, generation in self._running.items() if generation.cancelled]:
            self._batch.leave(row)
            del self._running[row]

    def _step(self) -> None:
        try:
            self._let_go()
            done = self._batch.step() if self._batch.rows else []
        except Exception as error:  # of the step that all share: those served see it, and who waits is served next
            self._fail_running(generation_error(error))
            return
        for row in done:
            del self._running[row]

    def _fail_running(self, error: EngineError) -> None:
        self._running.clear()
        for row in self._batch.clear():
            row.sequence.fail(error)

    def _fail_all(self, error: EngineError) -> None:
        self._fail_running(error)
        with self._changed:
            waiting, self._waiting = self._waiting, deque()
        for row, _ in waiting:
            row.sequence.fail(error)
