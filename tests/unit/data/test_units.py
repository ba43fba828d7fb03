from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_rows import data_settings, digests, lines_of, nemotron_row, prepared
from pyarrow import parquet

from nemo_reasoning.data.prepare import units
from nemo_reasoning.data.prepare.files import LONGEST_LINE, Span, owned_lines
from nemo_reasoning.data.prepare.inputs import Subset
from nemo_reasoning.data.prepare.units import IndexRows, index_spans, plan_units
from nemo_reasoning.errors import DataError

LINES = st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), max_size=20)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("lines") / "rows.jsonl"


@settings(deadline=None)
@given(lines=LINES, ended=st.booleans(), size=st.integers(1, 30))
def test_spans_of_any_size_own_every_line_once(scratch: Path, lines: list[bytes], ended: bool, size: int) -> None:
    content = b"\n".join(lines) + (b"\n" if ended else b"")
    address = f"memory://{abs(hash(content))}.jsonl"
    with fsspec.open(address, "wb") as file:
        file.write(content)
    spans = [Span(address, len(content), start, start + size) for start in range(0, len(content), size)]
    found = [line for span in spans for line in owned_lines(span)]
    wanted = content.split(b"\n")[: None if content and not content.endswith(b"\n") else -1]
    assert [line.content for line in found] == wanted
    assert all(content[line.offset :].startswith(line.content) for line in found)


def test_local_files_are_read_as_remote_ones_and_endless_lines_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"a\nbc\n" + b"x" * (LONGEST_LINE + 10) + b"\ntail")
    span = Span(str(path), path.stat().st_size, 0, 6)
    first, second, endless = owned_lines(span)
    assert (first.content, second.content, endless.offset) == (b"a", b"bc", 5)
    assert len(endless.content) == LONGEST_LINE
    assert not endless.whole
    last = Span(str(path), path.stat().st_size, LONGEST_LINE, path.stat().st_size)
    assert [line.content for line in owned_lines(last)] == [b"tail"]


def test_a_file_that_shrank_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"short")
    with pytest.raises(DataError, match="has become shorter"):
        list(owned_lines(Span(str(path), 100, 0, 100)))


def _taken(path: Path, *overrides: str, rows: int, index: list[Path] | None = None) -> list[bytes]:
    data = data_settings("data=jsonl", f"data.paths=[{path}]", "data.block_kb=1", *overrides)
    subset = Subset("rows", (str(path),), rows)
    taken = plan_units(subset, data, index or [])
    return [line.content for unit in taken for span in unit.spans for line in owned_lines(span)]


@pytest.fixture
def thousand(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(b"%06d%s\n" % (number, b"." * (number % 40)) for number in range(1000)))
    return path


def test_blocks_take_every_row_once_in_an_order_of_the_seed(thousand: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_SMALL", 0)  # as if the file were too large to be drawn from row by row
    lines = thousand.read_bytes().splitlines()
    first = _taken(thousand, rows=10)
    assert first == _taken(thousand, rows=10)
    assert first != _taken(thousand, "data.seed=1", rows=10)
    assert sorted(first) == lines
    assert first[:20] != lines[:20]
    assert _taken(thousand, "data.sampling=head", rows=10) == lines


def test_reservoir_takes_each_row_as_likely(thousand: Path, tmp_path: Path) -> None:
    picked: Counter[bytes] = Counter()
    lines = thousand.read_bytes().splitlines()
    for seed in range(30):
        data = data_settings("data=jsonl", f"data.paths=[{thousand}]", "data.sampling=reservoir", f"data.seed={seed}")
        folder = tmp_path / str(seed)
        folder.mkdir()
        spans = index_spans(Subset("rows", (str(thousand),), 10), data)
        index = [IndexRows(folder, seed)((number, 0, span)) for number, span in enumerate(spans)]
        order = _taken(thousand, "data.sampling=reservoir", f"data.seed={seed}", rows=10, index=index)
        assert sorted(order) == lines
        picked.update(order[:100])
    halves = sum(picked[line] for line in lines[:500]), sum(picked[line] for line in lines[500:])
    assert abs(halves[0] - halves[1]) < 4 * np.sqrt(3000)
    assert max(picked.values()) < 15


def test_reservoir_is_refused_for_remote_files() -> None:
    data = data_settings("data=jsonl", "data.paths=[memory://a.jsonl]", "data.sampling=reservoir")
    with pytest.raises(DataError, match=r"would fetch all of memory://a\.jsonl; choose block or head"):
        index_spans(Subset("rows", ("memory://a.jsonl",), 10), data)


def test_a_sample_of_parquet_files_reads_single_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_SMALL", 0)
    for name in ("a", "b", "c"):
        rows = [nemotron_row(number, seed=ord(name)) | {"used_in_training": "yes"} for number in range(200)]
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet", row_group_size=20)
    chosen = ("data=jsonl", f"data.paths=[{tmp_path}/*.parquet]", "data.rows=100", "data.fast_tokenizer=false")
    for workers in (1, 2):
        counts = prepared(tmp_path / f"{workers}/out", *chosen, f"data.workers={workers}")["counts"]
    assert counts["kept"] == 100
    assert counts["read"] < 140  # of 600
    assert digests(tmp_path / "1/out") == digests(tmp_path / "2/out")
    lines = [line for name in ("training", "validation") for line in lines_of(tmp_path / f"1/out/{name}.jsonl")]
    numbers = [int(line["messages"][1]["content"].split()[2]) for line in lines]
    assert max(numbers) > 120  # not the heads of the files
    assert min(numbers) < 50
