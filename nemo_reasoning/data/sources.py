"""Read rows of chats, from JSON Lines in any of the schemas in use or from the built-in problems.

Accepted are `messages` rows, and both generations of the Llama-Nemotron post-training rows: `input`
as a list of turns with `output` and `reasoning`, or `input` as one Llama-3-templated string.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from nemo_reasoning.artifacts import file_sha256
from nemo_reasoning.data.builtin import training_rows
from nemo_reasoning.data.dual_mode import settle
from nemo_reasoning.data.schema import THINK_CLOSE, THINK_OPEN, Message, Mode, Rejected, Role, Row
from nemo_reasoning.errors import DataError, RowError

_BEGIN, _END_OF_TURN = "<|begin_of_text|>", "<|eot_id|>"
_HEADER, _HEADER_END = "<|start_header_id|>", "<|end_header_id|>"


@dataclass(frozen=True)
class RowSource:
    """Rows that can be read as often as needed, without ever holding more than one.

    Attributes:
        paths: JSON Lines files; empty for the built-in problems.
        rows: Most rows to read; None reads all there are, which the built-in problems do not allow.
        seed: Of the built-in problems.
    """

    paths: tuple[Path, ...]
    rows: int | None
    seed: int

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            DataError: A file does not exist, or the built-in problems were asked for without a number.
        """
        missing = [str(path) for path in self.paths if not path.is_file()]
        if missing:
            raise DataError(f"data.paths: no such file: {', '.join(missing)}")
        if not self.paths and self.rows is None:
            raise DataError("data.rows=null: the built-in problems never end; give a number of rows")

    def __iter__(self) -> Iterator[Row | Rejected]:
        """Yield each row, an unusable one as `Rejected`."""
        if self.paths:
            yield from islice(read_rows(self.paths), self.rows)
            return
        for number, value in enumerate(training_rows(count=self.rows or 0, seed=self.seed, off_share=0), start=1):
            yield parse_row(value, origin=f"builtin:{number}")

    def inputs(self) -> dict[str, Any]:
        """Return what a manifest records: the files with their SHA-256, or the built-in problems' seed."""
        if self.paths:
            return {"files": {str(path): file_sha256(path) for path in self.paths}, "rows": self.rows}
        return {"builtin": {"rows": self.rows, "seed": self.seed}}


def read_rows(paths: Sequence[Path]) -> Iterator[Row | Rejected]:
    """Yield every row of some JSON Lines files, one at a time; unusable ones as `Rejected`.

    Lines of nothing but white space are no rows.
    """
    for path in paths:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _read_line(line, f"{path}:{number}")


def _read_line(line: bytes, origin: str) -> Row | Rejected:
    try:
        return parse_row(_decoded(line), origin=origin)
    except RowError as error:
        return Rejected.at(origin, error)


def _decoded(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RowError(f"not UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:  # besides bad JSON: endless digits, endless nesting
        raise RowError(f"not JSON: {error}") from error


def parse_row(value: Any, *, origin: str) -> Row:
    """Return the row a JSON value describes, its thinking normalised and its switch in the system turn.

    Args:
        value: What JSON decoding gave.
        origin: "file:line", for messages to people.

    Raises:
        RowError: "reason: detail" of what makes it unusable.
    """
    if not isinstance(value, dict):
        raise RowError(f"not an object: {type(value).__name__}")
    messages, mode = settle(_turns(value), stated=_stated(value))
    return Row(messages, mode, category=_text(value, "category"), license=_text(value, "license"), origin=origin)


def _text(value: dict[str, Any], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""


def _stated(value: dict[str, Any]) -> frozenset[Mode]:
    stated = value.get("reasoning")
    if stated is None:
        return frozenset()
    if stated not in ("on", "off"):
        raise RowError(f"unknown reasoning: {stated!r} is neither 'on' nor 'off'")
    return frozenset([cast(Mode, stated)])


def _turns(value: dict[str, Any]) -> list[Message]:
    """Return all turns, with the `system_prompt` column above the system turn that the row may have."""
    turns = _listed(value["messages"], "messages") if "messages" in value else _answered(value)
    system = value.get("system_prompt")
    if system is not None:
        own = turns.pop(0).content if turns[0].role == "system" else ""
        switch = _message("system", system).content.strip()
        turns.insert(0, Message("system", f"{switch}\n\n{own}".strip()))
    return turns


def _answered(value: dict[str, Any]) -> list[Message]:
    if "input" not in value or "output" not in value:
        raise RowError(f"missing keys: found {sorted(value)}, wanted messages, or input and output")
    given = value["input"]
    turns = _templated(given) if isinstance(given, str) else _listed(given, "input")
    answer = _message("assistant", value["output"])
    return [*turns, Message("assistant", answer.content.strip().removesuffix(_END_OF_TURN))]


def _templated(text: str) -> list[Message]:
    """Return the turns of a Llama-3-templated prompt; text without a header is one user turn."""
    before, *pieces = text.strip().removeprefix(_BEGIN).split(_HEADER)
    if not pieces:
        return [_message("user", before)]
    turns = []
    for piece in pieces:
        role, header_end, rest = piece.partition(_HEADER_END)
        content, _, after = rest.partition(_END_OF_TURN)
        if before.strip() or after.strip() or not header_end:
            raise RowError(f"malformed template: {text[:60]!r}")
        turns.append(_message(role.strip(), content.strip()))
    if turns[-1] == Message("assistant", ""):  # the open header that `output` answers
        turns.pop()
    return turns


def _listed(value: Any, key: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise RowError(f"wrong type: {key} is not a list of turns")
    messages = []
    for turn in value:
        if not isinstance(turn, dict):
            raise RowError(f"wrong type: a turn of {key} is a {type(turn).__name__}")
        messages.append(_message(turn.get("role"), turn.get("content")))
    return messages


def _message(role: Any, content: Any) -> Message:
    if role not in ("system", "user", "assistant"):
        raise RowError(f"unknown role: {role!r}")
    if not isinstance(content, str):
        raise RowError(f"wrong type: content of the {role} turn is a {type(content).__name__}")
    try:
        content.encode()
    except UnicodeEncodeError as error:  # JSON can escape half a surrogate pair
        raise RowError(f"not Unicode: {error.reason} in the {role} turn") from error
    if role != "assistant" and (THINK_OPEN in content or THINK_CLOSE in content):
        raise RowError(f"think tag in a {role} turn: {content[:60]!r}")
    return Message(cast(Role, role), content)
