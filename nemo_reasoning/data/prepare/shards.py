"""What a worker leaves behind: the rows of one unit, complete under its name or not there at all."""

import json
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from nemo_reasoning.data.store import Encoded, disk_errors, save_array
from nemo_reasoning.reasoning.messages import Message, Mode

KEPT, QUARANTINED = "kept", "quarantined: "
ROW = np.dtype(
    [
        ("place", "u4"),  # among the rows the shard read
        ("content", "u8"),  # hash of what is said, before the switch is touched, whatever its spacing
        ("question", "u8"),  # hash of the first question, whatever its spacing and case
        ("order", "u8"),  # random, from content and seed
        ("completion", "u4"),  # supervised tokens
        ("thinking", "?"),
        ("turned_off", "?"),
        ("validation", "?"),
        ("license", "u2"),  # index into the shard's licences
    ]
)
_to_json = json.JSONEncoder(ensure_ascii=False).encode
_PARSING = threading.Lock()  # numpy parses headers with `ast`: in two threads it may fail before Python 3.11.8
_ARRAYS = ("tokens", "loss_mask", "token_ends", "messages", "message_ends", "rows", "outcomes", "modes")
_FACTS = ("names", "licenses", "quarantine", "lines", "encoded_again", "unknown", "unused_answers")
MODES: tuple[Mode | None, ...] = (None, "on", "off")


@dataclass(frozen=True)
class Shard:
    """The rows of a unit.

    Attributes:
        tokens: Ids of all kept rows, one behind the other, int32.
        loss_mask: As many booleans.
        token_ends: Where each row's tokens begin, and the last one's end, [rows + 1], int64.
        messages: Lines of messages JSONL, one behind the other, uint8; empty if not asked for.
        message_ends: Likewise for the lines.
        rows: Facts on each kept row, [rows], of dtype ROW.
        outcomes: What became of each row read, as an index into `names`, [rows read], uint16.
        modes: The mode of each row read, as an index into MODES, [rows read], uint8.
        names: Outcomes; the first is `KEPT`, others are filters or, with a colon, reasons for the quarantine.
        licenses: Licences that occur.
        quarantine: Unusable rows: place, file, line in the span, byte, reason and detail.
        lines: Lines read, empty ones included.
        encoded_again: Rows tokenised by the reference because an audit of the fast path failed.
        unknown: Rows that have each column nobody knows.
        unused_answers: Answers of kept rows beside the one that was chosen.
    """

    tokens: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]
    token_ends: NDArray[np.int64]
    messages: NDArray[np.uint8]
    message_ends: NDArray[np.int64]
    rows: NDArray[np.void]
    outcomes: NDArray[np.uint16]
    modes: NDArray[np.uint8]
    names: list[str]
    licenses: list[str]
    quarantine: list[dict[str, Any]]
    lines: int
    encoded_again: int
    unknown: dict[str, int]
    unused_answers: int

    @classmethod
    def open(cls, folder: Path) -> "Shard":
        """Map the arrays of a finished shard."""
        # As plain arrays: slicing a `memmap` takes several times as long.
        with _PARSING:
            arrays: dict[str, Any] = {
                name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in _ARRAYS
            }
        return cls(**arrays, **json.loads((folder / "shard.json").read_text(encoding="utf-8")))

    def save(self, folder: Path, *, extra: dict[str, bytes]) -> None:
        """Write everything into a folder that appears complete.

        Raises:
            DataError: The disk is full; nothing is left behind.
        """
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            with disk_errors(folder):
                self._write(partial, extra)
                try:
                    partial.rename(folder)
                except OSError:
                    if not folder.is_dir():  # else of a worker that was given up as lost, and went on: the same bytes
                        raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _write(self, folder: Path, extra: dict[str, bytes]) -> None:
        for name in _ARRAYS:
            save_array(folder / f"{name}.npy", getattr(self, name))
        for name, content in extra.items():
            (folder / name).write_bytes(content)
        facts = {name: getattr(self, name) for name in _FACTS}
        (folder / "shard.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


@dataclass
class ShardBuilder:
    """Collects a shard row by row."""

    lines: int = 0
    encoded_again: int = 0
    unused_answers: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    _modes: list[int] = field(default_factory=list)
    _encoded: list[Encoded] = field(default_factory=list)
    _messages: list[bytes] = field(default_factory=list)
    _rows: list[tuple[Any, ...]] = field(default_factory=list)
    _outcomes: list[int] = field(default_factory=list)
    _names: dict[str, int] = field(default_factory=lambda: {KEPT: 0})
    _licenses: dict[str, int] = field(default_factory=dict)
    _quarantine: list[dict[str, Any]] = field(default_factory=list)

    @property
    def places(self) -> int:
        """Rows read so far."""
        return len(self._outcomes)

    def keep(
        self, encoded: Encoded, messages: Sequence[Message] | None, *, license: str, mode: Mode, **facts: Any
    ) -> None:
        """Add a kept row; `facts` are fields of ROW, `messages` its line, if lines are wanted."""
        facts |= {"place": self.places, "completion": int(np.count_nonzero(encoded.loss_mask))}
        facts["license"] = self._licenses.setdefault(license, len(self._licenses))
        self._rows.append(tuple(facts[name] for name in ROW.names or ()))
        self._encoded.append(encoded)
        if messages is not None:
            self._messages.append(_line(messages))
        self._count(0, mode)

    def leave_out(self, name: str, *, mode: Mode | None) -> None:
        """Count a row that a filter leaves out."""
        self._count(self._names.setdefault(name, len(self._names)), mode)

    def quarantine(self, reason: str, detail: str, *, mode: Mode | None, **facts: Any) -> None:
        """Count and list an unusable row."""
        self._quarantine.append({"place": self.places, "reason": reason, "detail": detail, **facts})
        self.leave_out(f"{QUARANTINED}{reason}", mode=mode)

    def _count(self, outcome: int, mode: Mode | None) -> None:
        self._outcomes.append(outcome)
        self._modes.append(MODES.index(mode))

    def finish(self) -> Shard:
        """Return the shard."""
        lengths = [len(encoded.ids) for encoded in self._encoded]
        return Shard(
            tokens=np.concatenate([np.empty(0, np.int32), *(encoded.ids for encoded in self._encoded)]),
            loss_mask=np.concatenate([np.empty(0, np.bool_), *(encoded.loss_mask for encoded in self._encoded)]),
            token_ends=_ends(lengths),
            messages=np.frombuffer(b"".join(self._messages), np.uint8),
            message_ends=_ends([len(line) for line in self._messages]),
            rows=np.array(self._rows, dtype=ROW),
            outcomes=np.array(self._outcomes, dtype=np.uint16),
            modes=np.array(self._modes, dtype=np.uint8),
            names=list(self._names),
            licenses=list(self._licenses),
            quarantine=self._quarantine,
            lines=self.lines,
            encoded_again=self.encoded_again,
            unknown=dict(sorted(self.unknown.items())),
            unused_answers=self.unused_answers,
        )


def _line(messages: Sequence[Message]) -> bytes:
    """Return a dialogue as a line of messages JSONL."""
    tools = b', "tools": ' + _to_json(list(messages[0].tools)).encode() if messages[0].tools else b""
    return b'{"messages": [' + b", ".join(map(_turn, messages)) + b"]" + tools + b"}\n"


def _turn(turn: Message) -> bytes:
    """Return a turn as JSON; one that its author excludes keeps its mark."""
    said = turn.to_dict()
    if turn.excluded or len(said) > 2:
        return _to_json(said | ({"weight": 0} if turn.excluded else {})).encode()
    return b'{"role": "%s", "content": %s}' % (turn.role.encode(), to_json(turn.content))  # the same, in less time


def _ends(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(lengths, dtype=np.int64))])
