"""Reading files of rows: each line is a row or is rejected where it stands, as often as it is read."""

import json
from pathlib import Path

import pytest
from chats import write_lines

from nemo_reasoning.artifacts import file_sha256
from nemo_reasoning.data.schema import Rejected, Row
from nemo_reasoning.data.sources import RowSource, read_rows
from nemo_reasoning.errors import DataError

ROW = {"input": [{"role": "user", "content": "2 + 2?"}], "output": "It is 4.", "reasoning": "off"}


def test_each_line_is_read_or_rejected_where_it_stands(tmp_path: Path) -> None:
    row = json.dumps(ROW).encode()
    lines = [
        b"\xef\xbb\xbf" + row + b"\r",
        b"",
        b" \t",
        b'{"messages": [',
        b'{"messages": "\xff"}',
        b"[" * 100_000,
        b"9" * 5_000,
        row + row,
        row,
    ]
    first = write_lines(tmp_path / "first.jsonl", lines)
    second = write_lines(tmp_path / "second.jsonl", [[], ROW])
    second.write_bytes(second.read_bytes().rstrip(b"\n"))  # the last line need not end
    found = list(read_rows([first, second]))
    assert [row.origin for row in found if isinstance(row, Row)] == [f"{first}:1", f"{first}:9", f"{second}:2"]
    rejected = [(row.file, row.line, row.reason) for row in found if isinstance(row, Rejected)]
    assert rejected == [
        (str(first), 4, "not JSON"),
        (str(first), 5, "not UTF-8"),
        (str(first), 6, "not JSON"),
        (str(first), 7, "not JSON"),
        (str(first), 8, "not JSON"),
        (str(second), 1, "not an object"),
    ]


def test_a_source_can_be_read_again_and_stops_where_told(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [ROW, [], ROW, ROW])
    everything = RowSource((path,), None, 0)
    assert [type(row) for row in everything] == [Row, Rejected, Row, Row]
    assert list(everything) == list(everything)
    assert list(RowSource((path, path), 3, 0)) == list(everything)[:3]
    assert len(list(RowSource((path, path), 6, 0))) == 6
    assert RowSource((path,), 3, 0).inputs() == {"files": {str(path): file_sha256(path)}, "rows": 3}


def test_the_builtin_problems_are_a_source() -> None:
    source = RowSource((), 30, 5)
    rows = list(source)
    assert [row.origin for row in rows] == [f"builtin:{number}" for number in range(1, 31)]
    assert {row.mode for row in rows} == {"on"}
    assert list(source) == rows
    assert list(RowSource((), 20, 5)) == rows[:20]
    assert list(RowSource((), 20, 6)) != rows[:20]
    assert source.inputs() == {"builtin": {"rows": 30, "seed": 5}}


def test_a_source_that_cannot_be_read_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file: .*missing\.jsonl"):
        RowSource((write_lines(tmp_path / "a.jsonl", []), tmp_path / "missing.jsonl"), None, 0)
    with pytest.raises(DataError, match="give a number of rows"):
        RowSource((), None, 0)
