"""Sequences that write the likeliest tokens, and the batch they run in."""

import random
from collections.abc import Collection
from typing import Any

import torch

from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference.hf.batch import RunningBatch
from nemo_reasoning.inference.hf.row import Row

PROMPTS = [[5, 9, 40, 7, 100, 3, 77], [60], [8, 8, 30], [120, 121, 122, 90], list(range(3, 90)), [33, 44]]


class Greedy:
    """Writes the likeliest tokens to the end or a limit."""

    echo = None

    def __init__(self, prompt: list[int], limit: int = 24, stop_ids: Collection[int] = ()) -> None:
        self.prompt, self.limit, self._stop_ids = prompt, limit, stop_ids
        self.tokens: list[int] = []
        self.error: EngineError | None = None

    @property
    def done(self) -> bool:
        return self.error is not None

    def fail(self, error: EngineError) -> None:
        self.error = error

    def advance(self, logits: torch.Tensor, likeliest: int) -> bool:
        assert int(logits.argmax()) == likeliest
        self.tokens.append(likeliest)
        return likeliest in self._stop_ids or len(self.tokens) == self.limit


def running(model: Any, *, max_rows: int = 8, prefill_tokens: int = 16, max_bytes: int = 10**8) -> RunningBatch:
    return RunningBatch(model, lora=None, max_rows=max_rows, max_bytes=max_bytes, prefill_tokens=prefill_tokens)


def run(batch: RunningBatch, sequences: list[Greedy], *, arrivals: random.Random | None = None) -> None:
    """Serve the sequences, all at once or as chance has them arrive."""
    waiting = [Row(sequence, -1) for sequence in sequences]
    with torch.inference_mode():
        while waiting or batch.rows:
            while waiting and batch.fits(waiting[0]) and (arrivals is None or arrivals.random() < 0.4):
                batch.join(waiting.pop(0))
            if batch.rows:
                batch.step()
