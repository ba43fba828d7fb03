"""A batch that requests join and leave between two tokens."""

from collections.abc import Sequence
from typing import Any

import torch

from nemo_reasoning.errors import GenerationError
from nemo_reasoning.inference.hf.kv_cache import Block, KVCache
from nemo_reasoning.inference.hf.multi_lora import MultiLora
from nemo_reasoning.inference.hf.prefixes import Prefixes, worth_waiting
from nemo_reasoning.inference.hf.row import Row, advanced, failed

_KEPT_SHARE = 0.125  # of the memory, for what was read of requests that are gone
_NO_NUMBERS = (
    "the model computes no finite numbers (NaN or infinity) for this prompt; set engine.dtype=float32, and if that "
    "changes nothing, its weights are damaged"
)


class RunningBatch:
    """Rows that are decoded together, one token a step, and rows whose prompts are still being read.

    Prompts are read in pieces, in one pass with the tokens of the others: a long one does not halt them. Decoding
    rows stand first, in the cache as in the list. A row's tokens do not depend on its neighbours but for
    rounding; on a CPU linear layers round alike in batches of any size (see `packed`).

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
            prefill_tokens: Most prompt tokens read in a pass.
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
        self._no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=model.device)  # pieces have their own
        # A single row takes another path of oneDNN, with other rounding; two or more round alike in bfloat16.
        self._least_rows = 2 if model.dtype is torch.bfloat16 and model.device.type == "cpu" else 1
        self._max_positions = max_bytes // self._cache.bytes_per_position
        self._prefixes = Prefixes(self._cache, positions=int(self._max_positions * _KEPT_SHARE))
        self._decoding = self._apart = 0  # rows that are; steps in which prompts are read one at a time
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
        """Remove a row; others move up into its place. What was read of it is kept for requests that begin alike."""
        place = self.rows.index(row)
        self._prefixes.keep(row, place)
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
        """Write a token of every row that is read, read a piece of the waiting prompts, and return who is done.

        Both are one pass: weights are read once for all tokens.
        """
        pieces = self._next_pieces()
        try:
            done = self._pass(self.rows[: self._decoding], pieces)
        except Exception as error:  # such as memory that these prompts exhaust: the others go on
            if self._cache.empty or not pieces:
                raise
            self._apart = len(pieces) if len(pieces) > 1 else 0
            done = [] if self._apart else [row for row, _ in pieces if failed(row, error)]
        for row in done:
            self.leave(row)
        return done

    def _next_pieces(self) -> list[tuple[Row, int]]:
        """Return the next prompts and how much to read of each; only of the last there may be more."""
        pieces: list[tuple[Row, int]] = []
        room = self._prefill_tokens
        for row in self.rows[self._decoding :]:
            if not room or (pieces and self._apart) or not self._begun(row, [other for other, _ in pieces]):
                break
            pieces.append((row, min(len(row.sequence.prompt) - row.read, room)))
            room -= pieces[-1][1]
        self._apart = max(self._apart - 1, 0)
        return pieces

    def _begun(self, row: Row, others: Sequence[Row]) -> bool:
        """Copy the beginning of a prompt that has been read; return False to wait for what others read now."""
        if row.read or row.sequence.echo is not None:  # the echo wants to see all of it
            return True
        beginning = self._prefixes.find(row, self.rows)
        if worth_waiting(row, others, known=beginning.length):
            return False
        if beginning.length:
            self._reserve(beginning.length)
            beginning.copy(self.rows.index(row))
            row.read = beginning.length
        return True

    def _reserve(self, length: int) -> None:
        """Make room in the cache for all rows, one of which comes to hold so many positions."""
        longest = max(length, *(row.held for row in self.rows))
        self._cache.reserve(rows=len(self.rows), length=longest, most=self._max_positions)
        self._prefixes.limit(self._max_positions - self._cache.allocated)

    def _pass(self, decoding: list[Row], pieces: list[tuple[Row, int]]) -> list[Row]:
        """Compute once, and return who is done."""
        ids = [row.sequence.tokens[-1] for row in decoding]
        blocks = [Block(0, [row.held for row in decoding], 1)] if decoding else []
        ready, ends = list(decoding), list(range(len(decoding)))
        for number, (row, size) in enumerate(pieces):
            ids += row.sequence.prompt[row.read : row.read + size]
            blocks.append(Block(self._decoding + number, [row.read], size))
            if row.read + size == len(row.sequence.prompt):
                ready.append(row)
                ends.append(len(ids) - 1)
        hidden = self._hidden(ids, blocks, [*decoding, *(row for row, size in pieces for _ in range(size))])
        logits = self._logits(hidden[torch.tensor(ends, device=hidden.device, dtype=torch.int64)])
        unread = self._note(pieces, hidden[len(decoding) :])
        return [row for row in unread if row not in ready] + self._advance(ready, logits)

    def _hidden(self, ids: list[int], blocks: list[Block], owners: list[Row]) -> torch.Tensor:
        """Return the last hidden states [tokens, size]; there may be spare ones behind them.

        Args:
            ids: The tokens.
            blocks: How they stand in the cache.
            owners: Row of each token.
        """
        spare = max(self._least_rows - len(ids), 0)
        longest = max(max(block.starts) + block.new for block in blocks) + spare
        self._reserve(longest)
        self._cache.aim(blocks, spare=spare)
        if self._lora is not None:
            self._lora.route([row.adapter for row in owners] + [-1] * spare)
        output = self._model.model(
            input_ids=torch.tensor([ids + [0] * spare], device=self._model.device),
            attention_mask=self._no_mask,
            position_ids=self._cache.positions,
            cache_position=self._cache.positions[0],
            past_key_values=self._cache,
            use_cache=True,
            pieces=self._cache.pieces,
        )
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden

    def _note(self, pieces: list[tuple[Row, int]], hidden: torch.Tensor) -> list[Row]:
        """Note what was read of prompts, and return the rows that fail at it."""
        begin, unread = 0, []
        for row, size in pieces:
            row.read += size
            self._decoding += row.whole
            if not self._echoed(row, hidden[begin : begin + size]):
                unread.append(row)
            begin += size
        return unread

    def _echoed(self, row: Row, hidden: torch.Tensor) -> bool:
        """Let a request read along its prompt, and return whether it could."""
        try:
            if row.sequence.echo is not None:
                row.sequence.echo.read(hidden, self._model.lm_head)
        except Exception as error:
            return not failed(row, error)
        return True

    def _logits(self, ends: torch.Tensor) -> torch.Tensor:
        """Return the logits [rows, vocabulary] of some last hidden states [rows, size]."""
        rows = len(ends)
        if not rows:
            return ends
        if rows < self._least_rows:
            ends = torch.cat([ends, ends.new_zeros(self._least_rows - rows, ends.shape[1])])
        logits: torch.Tensor = self._model.lm_head(ends)
        return logits[:rows]

    def _advance(self, rows: list[Row], scores: torch.Tensor) -> list[Row]:
        if not rows:
            return []
        highest, likeliest = scores.max(-1)  # argmax takes six times as long in bfloat16
        for row, finite in zip(rows, highest.isfinite().tolist(), strict=True):
            if not finite:
                self._cache.wipe(self.rows.index(row))  # a mask does not hide NaN from who has the place next
                row.damaged = True
                row.sequence.fail(GenerationError(_NO_NUMBERS))
        return [
            row
            for row, score, token in zip(rows, scores, likeliest.tolist(), strict=True)
            if row.sequence.done or advanced(row, score, token)
        ]
