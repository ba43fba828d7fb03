"""A batch that requests join and leave between two tokens."""

from collections.abc import Iterable
from typing import Any

import torch

from nemo_reasoning.errors import EngineError, GenerationError
from nemo_reasoning.inference.hf.kv_cache import KVCache
from nemo_reasoning.inference.hf.multi_lora import MultiLora
from nemo_reasoning.inference.sequence import TokenSequence

_NO_NUMBERS = (
    "the model computes no finite numbers (NaN or infinity) for this prompt; set engine.dtype=float32, and if that "
    "changes nothing, its weights are damaged"
)


class Row:
    """A request in the batch.

    Attributes:
        sequence: Takes the logits.
        adapter: Number of its adapter; -1 for none.
        read: Tokens of its prompt that the model has read.
    """

    __slots__ = ("adapter", "read", "sequence")

    def __init__(self, sequence: TokenSequence, adapter: int) -> None:
        """Take the request's sequence and the number of its adapter."""
        self.sequence, self.adapter, self.read = sequence, adapter, 0

    @property
    def most(self) -> int:
        """Positions the row may come to hold."""
        return len(self.sequence.prompt) + self.sequence.limit

    @property
    def held(self) -> int:
        """Positions that hold what the model has read; the last token written is not among them."""
        return self.read + max(len(self.sequence.tokens) - 1, 0)


class RunningBatch:
    """Rows that are decoded together, one token a step, and rows whose prompts are still being read.

    A prompt is read in pieces of `prefill_tokens`, between the tokens of the others, so that a long one
    does not halt them. Decoding rows stand first, in the cache as in the list. A row's tokens do not depend
    on its neighbours but for rounding; on a CPU linear layers round alike in batches of any size (see `packed`).

    Attributes:
        rows: Of both kinds.
    """

    def __init__(
        self, model: Any, *, lora: MultiLora | None, max_rows: int, max_bytes: int, prefill_tokens: int
    ) -> None:
        """Take the model and its limits.

        Args:
            model: A Hugging Face causal language model of the Llama family, in evaluation mode.
            lora: Adapters that the model's layers apply by row, if there are any.
            max_rows: Most rows at a time.
            max_bytes: Most memory of the cache.
            prefill_tokens: Most prompt tokens read between two tokens of the others.
        """
        config = model.config
        self._model, self._lora = model, lora
        self._max_rows, self._prefill_tokens = max_rows, prefill_tokens
        self._cache = KVCache(
            layers=config.num_hidden_layers,
            groups=config.num_key_value_heads,
            size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            dtype=model.dtype,
            device=model.device,
        )
        # A single row takes another path of oneDNN, with other rounding; two or more round alike in bfloat16.
        self._least_rows = 2 if model.dtype is torch.bfloat16 and model.device.type == "cpu" else 1
        self._max_positions = max_bytes // self._cache.bytes_per_position
        self._decoding = 0
        self.rows: list[Row] = []

    def fits(self, row: Row) -> bool:
        """Say whether a row may join now: there is a place, and memory for all to reach their limits."""
        longest = max([row.most, *(other.most for other in self.rows)])
        return len(self.rows) < self._max_rows and (len(self.rows) + 1) * longest <= self._max_positions

    def fits_alone(self, most: int) -> bool:
        """Say whether a row of so many positions may ever join."""
        return most <= self._max_positions

    def join(self, row: Row) -> None:
        """Add a row that fits."""
        self.rows.append(row)

    def clear(self) -> list[Row]:
        """Remove and return all rows, in whatever state an error left them."""
        rows, self.rows, self._decoding = self.rows, [], 0
        return rows

    def leave(self, row: Row) -> None:
        """Remove a row; others move up into its place."""
        place = self.rows.index(row)
        if place < self._decoding:
            self._decoding -= 1
            self._move(self._decoding, place)
            place = self._decoding
        self._move(len(self.rows) - 1, place)
        self.rows.pop()

    def _move(self, source: int, target: int) -> None:
        if source != target:
            row = self.rows[source]
            if row.held:  # else the cache may have no place for it yet
                self._cache.move(source, target, length=row.held)
            self.rows[target] = row

    def step(self) -> list[Row]:
        """Read a piece of the waiting prompts, write one token of every row that is read, and return who is done."""
        if self._decoding < len(self.rows):
            self._drop(done := self._prefill())
        else:
            done = []
        if self._decoding:
            self._drop(late := self._decode())
            done += late
        return done

    def _drop(self, done: Iterable[Row]) -> None:
        for row in done:
            self.leave(row)

    def _prefill(self) -> list[Row]:
        first = self._decoding
        chosen = self._next_prompts()
        sizes = [min(len(row.sequence.prompt) - row.read, self._prefill_tokens) for row in chosen]
        pieces = [row.sequence.prompt[row.read : row.read + size] for row, size in zip(chosen, sizes, strict=True)]
        new = max([*sizes, self._least_rows])
        ids = [piece + [0] * (new - len(piece)) for piece in pieces]
        try:
            hidden = self._forward(chosen, first=first, ids=ids, starts=[row.read for row in chosen])
            logits = self._logits(hidden, last=sizes)[: len(chosen)]
        except Exception as error:  # such as memory that these prompts exhaust
            if self._cache.empty:
                raise
            return [row for row in chosen if _failed(row, error)]
        ready, failed = [], []
        for place, (row, size) in enumerate(zip(chosen, sizes, strict=True)):
            row.read += size
            whole = row.read == len(row.sequence.prompt)
            self._decoding += whole
            if not self._echoed(row, hidden[place, :size]):
                failed.append(row)
            elif whole:
                ready.append((row, logits[place]))
        return failed + self._advance([row for row, _ in ready], [scores for _, scores in ready])

    def _echoed(self, row: Row, hidden: torch.Tensor) -> bool:
        """Let a request read along its prompt, and return whether it could."""
        try:
            if row.sequence.echo is not None:
                row.sequence.echo.read(hidden, self._model.lm_head)
        except Exception as error:
            return not _failed(row, error)
        return True

    def _next_prompts(self) -> list[Row]:
        """Return the next rows to read that fit into one piece; only the last of them may need another piece."""
        chosen: list[Row] = []
        longest = 0
        for row in self.rows[self._decoding :]:
            rest = len(row.sequence.prompt) - row.read
            longest = max(longest, rest)
            if chosen and longest * (len(chosen) + 1) > self._prefill_tokens:
                break
            chosen.append(row)
        return chosen

    def _decode(self) -> list[Row]:
        rows = self.rows[: self._decoding]
        spare = max(self._least_rows - len(rows), 0)
        # A spare row may be the cache's place of a prompt that is half read: write behind what it holds.
        starts = [row.held for row in self.rows[: len(rows) + spare]]
        starts += [0] * (len(rows) + spare - len(starts))
        ids = [[row.sequence.tokens[-1]] for row in rows] + [[0]] * spare
        hidden = self._forward(rows, first=0, ids=ids, starts=starts)
        return self._advance(rows, self._logits(hidden, last=[1] * len(ids))[: len(rows)])

    def _forward(self, rows: list[Row], *, first: int, ids: list[list[int]], starts: list[int]) -> torch.Tensor:
        """Return the last hidden states [rows, new positions, size]."""
        new, device = len(ids[0]), self._model.device
        longest = max(max(starts) + new, *(row.held for row in self.rows))
        in_use = max(first + len(ids), len(self.rows))
        self._cache.reserve(rows=in_use, length=longest, most=self._max_positions)
        self._cache.aim(first=first, starts=starts, new=new)
        if self._lora is not None:
            self._lora.route([row.adapter for row in rows] + [-1] * (len(ids) - len(rows)))
        hidden: torch.Tensor = self._model.model(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=self._cache.mask,
            position_ids=self._cache.positions,
            cache_position=self._cache.positions[0],
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    def _logits(self, hidden: torch.Tensor, *, last: list[int]) -> torch.Tensor:
        """Return the logits [rows, vocabulary] at the last token of each row, and of rows that only fill up."""
        places = torch.tensor(last, device=hidden.device) - 1
        ends = hidden[torch.arange(len(last), device=hidden.device), places]
        if len(last) < self._least_rows:
            ends = torch.cat([ends, ends.new_zeros(self._least_rows - len(last), ends.shape[1])])
        logits: torch.Tensor = self._model.lm_head(ends)
        return logits

    def _advance(self, rows: list[Row], logits: Any) -> list[Row]:
        if not rows:
            return []
        scores = logits if isinstance(logits, torch.Tensor) else torch.stack(logits)
        highest, likeliest = scores.max(-1)  # argmax takes six times as long in bfloat16
        for row, finite in zip(rows, highest.isfinite().tolist(), strict=True):
            if not finite:
                self._cache.wipe(self.rows.index(row))  # a mask does not hide NaN from who has the place next
                row.sequence.fail(GenerationError(_NO_NUMBERS))
        return [
            row
            for row, score, token in zip(rows, scores, likeliest.tolist(), strict=True)
            if row.sequence.done or _advanced(row, score, token)
        ]


def _advanced(row: Row, logits: torch.Tensor, likeliest: int) -> bool:
    """Write a row's next token, and return whether it is done; what fails here is this request's own."""
    try:
        return row.sequence.advance(logits, likeliest)
    except Exception as error:
        return _failed(row, error)


def _failed(row: Row, error: Exception) -> bool:
    """Fail one request, and return that it is done."""
    row.sequence.fail(generation_error(error))
    return True


def generation_error(error: Exception) -> EngineError:
    """Return an error of any library as one of ours."""
    return (
        error
        if isinstance(error, EngineError)
        else GenerationError(f"generation failed: {type(error).__name__}: {error}")
    )
