"""Read, filter, switch and tokenise the rows of one unit."""

import hashlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from nemo_reasoning.config.data import DataSettings
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.prepare.dedup import normalised, question_key, signature
from nemo_reasoning.data.prepare.files import Line, Span
from nemo_reasoning.data.prepare.filters import FilteredOut, Filters
from nemo_reasoning.data.prepare.row_groups import lines_of
from nemo_reasoning.data.prepare.shards import Shard, ShardBuilder
from nemo_reasoning.data.prepare.tokenise import Encoder, FastEncoder
from nemo_reasoning.data.prepare.units import Unit
from nemo_reasoning.data.prepare.unpack import DAMAGED
from nemo_reasoning.data.schemas.dialogue import Row, fraction, turned_off
from nemo_reasoning.data.schemas.layouts import declared
from nemo_reasoning.data.schemas.rows import decode_row
from nemo_reasoning.data.store import Encoded
from nemo_reasoning.errors import RowError
from nemo_reasoning.reasoning.messages import Mode

SIGNATURES = "signatures.pickle"
_ROWS_AT_ONCE = 256


class _Read(NamedTuple):
    """A line on its way: a row that passed its filters, or what became of it instead, and its mode as far as known."""

    span: Span
    line: Line
    row: Row | FilteredOut | RowError
    mode: Mode | None


@dataclass(frozen=True)
class MakeShard:
    """Turns units into shards; a finished one is left as it is.

    Attributes:
        data: Settings.
        formatter: The reference tokenisation.
        seq_length: Most tokens of a row.
        tokenizer_json: Its tokenizer, for the fast path; None to do without.
        folder: Where shards go.
    """

    data: DataSettings
    formatter: ChatFormatter
    seq_length: int
    tokenizer_json: Path | None
    folder: Path

    def __reduce__(self) -> tuple[type["MakeShard"], tuple[Any, ...]]:
        """Leave out what is made on first use: an earlier unit may have been done here, and a tokenizer stays."""
        return MakeShard, (self.data, self.formatter, self.seq_length, self.tokenizer_json, self.folder)

    def __call__(self, unit: Unit) -> Path:
        """Write the shard of a unit and return its folder."""
        folder = self.folder / unit.name
        if not folder.exists():
            shard, signatures = self.build(unit)
            shard.save(folder, extra={SIGNATURES: pickle.dumps(signatures)} if signatures else {})
        return folder

    def build(self, unit: Unit) -> tuple[Shard, list[Any]]:
        """Return the shard of a unit, and the MinHash signatures of its rows where they are asked for."""
        builder, signatures = ShardBuilder(), list[Any]()
        lines, before = self._lines(unit, builder), self._encoded_again
        while batch := list(islice(lines, _ROWS_AT_ONCE)):
            self._add(batch, builder, signatures)
        builder.encoded_again = self._encoded_again - before
        return builder.finish(), signatures

    def _lines(self, unit: Unit, builder: ShardBuilder) -> Iterator[_Read]:
        for span in unit.spans:
            for line in lines_of(span):
                builder.lines += 1
                if line.content.strip():
                    yield _Read(span, line, self._row(span, line), self._filters.mode)

    def _row(self, span: Span, line: Line) -> Row | FilteredOut | RowError:
        self._filters.mode = None
        try:
            if not line.whole:
                raise RowError(f"line too long: more than {len(line.content)} bytes")
            if line.content.startswith(DAMAGED):
                raise RowError(f"damaged archive: {line.content.removeprefix(DAMAGED).decode()}")
            return self._filters.read(decode_row(line.content), origin=f"{span.address}:{line.offset}")
        except (FilteredOut, RowError) as error:
            return error

    def _add(self, batch: list[_Read], builder: ShardBuilder, signatures: list[Any]) -> None:
        """Switch, tokenise and file a batch, in order."""
        rows = [read.row for read in batch if isinstance(read.row, Row)]
        share, seed = self.data.thinking_off_share, self.data.seed
        switched = [turned_off(row, probability=share, seed=seed) for row in rows]
        encoded = iter(self._encoder.encode_all([row.messages for row in switched]))
        written = iter(switched)
        for read in batch:
            if not isinstance(read.row, Row):
                _leave_out(builder, read, read.row)
                continue
            row, result = next(written), next(encoded)
            if isinstance(result, RowError):
                _leave_out(builder, read, result)
            elif (reason := self._filters.too_long(result)) is not None:
                _leave_out(builder, read, reason)
            else:
                self._keep(builder, read.row, row, result, signatures)

    def _keep(self, builder: ShardBuilder, row: Row, written: Row, encoded: Encoded, signatures: list[Any]) -> None:
        said = "\n".join(message.content for message in row.messages if message.role != "system")
        question, seed = question_key(row.question), self.data.seed
        builder.unknown.update(row.unknown)
        builder.unused_answers += row.unused
        builder.keep(
            encoded,
            written.messages if self.data.messages else None,
            license=row.license,
            content=_hash(normalised(f"{row.instructions}\n\n{said}" if row.instructions else said)),
            order=_hash(f"{seed}:{_hash(said.encode())}".encode()),
            question=_hash(question),
            thinking=written.mode == "on",
            turned_off=written is not row,
            validation=fraction(question, purpose="split", seed=seed) < self.data.validation_share,
            mode=row.mode,
        )
        if self.data.filters.near_duplicates is not None:
            signatures.append(signature(said))

    @property
    def _encoded_again(self) -> int:
        return self._encoder.encoded_again if isinstance(self._encoder, FastEncoder) else 0

    @cached_property
    def _filters(self) -> Filters:
        mapping = declared(self.data.columns)
        return Filters(self.data.filters, seq_length=self.seq_length, mapping=mapping)

    @cached_property
    def _encoder(self) -> Encoder:
        if self.tokenizer_json is None:
            return self.formatter
        return FastEncoder(self.formatter, tokenizer_json=self.tokenizer_json)


def _leave_out(builder: ShardBuilder, read: _Read, why: FilteredOut | RowError) -> None:
    if isinstance(why, FilteredOut):
        builder.leave_out(str(why), mode=read.mode)
        return
    reason, _, detail = str(why).partition(": ")
    builder.quarantine(
        reason, detail[:200], mode=read.mode, file=read.span.address, line=read.line.number, byte=read.line.offset
    )


def _hash(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
