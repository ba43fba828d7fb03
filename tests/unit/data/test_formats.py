"""Files are known by their bytes; what holds no rows, or has lost some, stops the run by name."""

import bz2
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from prepared_rows import corpus, lines_of, nemotron_row, prepared
from pyarrow import parquet as pq

from nemo_reasoning.data.prepare.formats import Format, cut_line, format_of
from nemo_reasoning.data.prepare.inputs import check_unchanged, find_subsets, snapshot
from nemo_reasoning.data.prepare.unpack import Unpack
from nemo_reasoning.errors import DataError

FOREIGN = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n": "Git LFS pointer",
    b"": "is empty",
    b" \n\n\t": "nothing but blanks",
    '{"a": 1}\n'.encode("utf-16"): "UTF-16",
    '{"a": 1}\n'.encode("utf-16-le"): "UTF-16",
    b"prompt,response\nhi,there\n": "CSV",
    b"prompt\tresponse\nhi\tthere\n": "CSV",
    b"<!DOCTYPE html><html>login</html>": "HTML",
    b"PK\x03\x04rest": "zip archive",
    b"ARROW1\0\0": "Arrow",
    b"PAR1 without an end": "cut",
    b"hello world\n": "not JSON Lines",
    b'{\n  "a": 1,\n  "b": 2\n}\n{\n  "a": 3\n}\n': "several lines",
    b"a" * 257 + b"ustar\0": "tar archive",
    b'{\n  "a": 1\n}\n': "one JSON object over several lines",
    b'{"a": 1}\r{"a": 2}\r': "carriage returns",
    b"PARE\x15\x04": "encrypted Parquet",
    b"\x04\x22\x4d\x18rest": "lz4",
    lzma.compress(b'{"a": 1}\n', format=lzma.FORMAT_ALONE): "lzma",
    zlib.compress(b'{"a": 1}\n'): "is binary",
}


@pytest.mark.parametrize("content", FOREIGN)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet", "rows.jsonl.gz"])
def test_what_holds_no_rows_is_named_whatever_its_ending(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path / name))}.*{FOREIGN[content]}"):
        format_of(str(tmp_path / name))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
@pytest.mark.parametrize("content", [content for content in FOREIGN if content and content[:4] != b"PAR1"])
def test_what_a_compressed_file_holds_is_named_too(tmp_path: Path, content: bytes, pack: Callable[..., bytes]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(pack(content))
    with pytest.raises(DataError, match=rf"rows\.jsonl \([\d,]+ bytes\), unpacked,.*{FOREIGN[content]}"):
        Unpack(tmp_path)((str(path), format_of(str(path))))


def test_archives_within_archives_are_named_and_arrays_are_read(tmp_path: Path) -> None:
    path, array = tmp_path / "rows.gz", json.dumps([{"a": number} for number in range(9)]).encode()
    for inner, told in ((gzip.compress(array), "is gzip"), (b"PAR1" + array, "is Parquet"), (b"", "blanks")):
        path.write_bytes(gzip.compress(inner))
        with pytest.raises(DataError, match=f"unpacked,.*{told}"):
            Unpack(tmp_path)((str(path), Format.gzip))
    path.write_bytes(gzip.compress(array))
    found = Unpack(tmp_path)((str(path), Format.gzip))
    assert [json.loads(line)["a"] for line in found.path.read_bytes().splitlines()] == list(range(9))


@pytest.mark.parametrize("rest", ["xyz", '[{"a": 1}]', "]"])
def test_what_stands_behind_an_array_is_damage(tmp_path: Path, rest: str) -> None:
    (tmp_path / "rows.json").write_text(f'[{{"a": 1}}, 2]{rest}')
    found = Unpack(tmp_path)((str(tmp_path / "rows.json"), Format.array))
    assert found.damage is not None
    assert "after 2 whole rows" in found.damage
    assert "behind the end of the array" in found.damage


TEXTS = pa.array([f"What is {number} + {number}?" for number in range(20)])
COLUMNS = {
    "large": TEXTS.cast(pa.large_string()),
    "dictionary": TEXTS.dictionary_encode(),
    "binary": TEXTS.cast(pa.binary()),
    "view": TEXTS.cast(pa.string_view()),
}


@pytest.mark.parametrize("rows", ["data.rows=null", "data.rows=4"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_texts_of_any_type_of_parquet_are_the_same_rows(tmp_path: Path, kind: str, rows: str) -> None:
    kwargs = pa.array([[("enable_thinking", False)]] * 20, pa.map_(pa.string(), pa.bool_()))
    nothing = pa.array([float("nan")] * 20)
    table = {"prompt": COLUMNS[kind], "response": TEXTS, "chat_template_kwargs": kwargs, "messages": nothing}
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    chosen = ("data=jsonl", "data.fast_tokenizer=false", rows, f"data.paths=[{tmp_path / 'rows.parquet'}]")
    prepared(tmp_path / "out", *chosen, "data.validation_share=0.5")
    lines = [line for name in ("training", "validation") for line in lines_of(tmp_path / "out" / f"{name}.jsonl")]
    assert len(lines) == (20 if "null" in rows else 4)
    assert all(line["messages"][1]["content"] == line["messages"][2]["content"] for line in lines)


def test_bytes_that_are_no_text_are_refused_and_no_rows_at_all_are_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    chosen = ("data=jsonl", "data.fast_tokenizer=false", f"data.paths=[{path}]")
    pq.write_table(pa.table({"prompt": TEXTS, "response": pa.array([b"\xff\xfe"] * 20)}), path)
    with pytest.raises(DataError, match="20 x wrong type.*The first: wrong type: response"):
        prepared(tmp_path / "out", *chosen)
    pq.write_table(pa.Table.from_arrays([TEXTS] * 3, names=["prompt", "response", "response"]), path)
    for rows in ("data.rows=null", "data.rows=4"):
        with pytest.raises(DataError, match="two columns of a Parquet file are named response"):
            prepared(tmp_path / "out", *chosen, rows)
    with pytest.raises(DataError, match="cannot be read: .*too long"):
        prepared(tmp_path / "out", "data=jsonl", f"data.paths=[{'a' * 300}]")
    pq.write_table(pa.table({"prompt": TEXTS[:0], "response": TEXTS[:0]}), path)
    for rows in ("data.rows=null", "data.rows=4"):
        with pytest.raises(DataError, match="hold no row at all"):
            prepared(tmp_path / "out", *chosen, rows)


def test_a_bad_file_stops_a_run_beside_good_ones(tmp_path: Path) -> None:
    good, bad = corpus(tmp_path / "good.jsonl", 50), tmp_path / "bad.jsonl"
    bad.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match=r"bad\.jsonl \(43 bytes\) is a Git LFS pointer"):
        prepared(tmp_path / "out", "data=jsonl", f"data.paths=[{good},{bad}]")


PACKERS = {
    "gz": (gzip.compress, Format.gzip),
    "bz2": (bz2.compress, Format.bz2),
    "xz": (lzma.compress, Format.xz),
    "zst": (zstandard.compress, Format.zstd),
}


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("ending", ["jsonl", "parquet", "gz"])
def test_archives_are_read_whatever_their_ending(tmp_path: Path, kind: str, ending: str) -> None:
    pack, known = PACKERS[kind]
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(pack(b'{"a": 1}\n{"a": 2}'))
    assert format_of(str(path)) is known
    (tmp_path / "work").mkdir()
    found = Unpack(tmp_path / "work")((str(path), known))
    assert (found.path.read_bytes(), found.damage) == (b'{"a": 1}\n{"a": 2}', None)


@pytest.mark.parametrize("kind", PACKERS)
def test_a_cut_archive_gives_its_whole_rows_and_says_what_is_missing(tmp_path: Path, kind: str) -> None:
    pack, known = PACKERS[kind]
    objects = ({"number": number, "more": hash(str(number))} for number in range(60_000))
    rows = "".join(json.dumps(row) + "\n" for row in objects).encode()
    path, packed = tmp_path / "rows", pack(rows)
    path.write_bytes(packed[: len(packed) // 2])
    (tmp_path / "work").mkdir()
    found = Unpack(tmp_path / "work")((str(path), known))
    *lines, mark = found.path.read_bytes().splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(len(lines)))
    assert mark.startswith(b"\0damaged archive: ")
    assert found.damage is not None
    assert f"after {len(lines):,} whole rows" in found.damage
    if kind == "zst":  # its header says how long the content is
        missing = int(re.search(r"([\d,]+) bytes of rows are missing", found.damage)[1].replace(",", ""))  # type: ignore[index]
        assert 0 < missing <= len(rows)


def test_a_long_window_is_read(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=29)
    squeeze = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "long.zst").write_bytes(squeeze.compress(b'{"a": 1}\n' * 9) + squeeze.flush())
    found = Unpack(tmp_path)((str(tmp_path / "long.zst"), Format.zstd))
    assert (found.path.read_bytes(), found.damage) == (b'{"a": 1}\n' * 9, None)


VALUES = st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3))


@given(values=st.lists(VALUES), indent=st.sampled_from([None, 2]), bom=st.booleans())
def test_an_array_becomes_lines(
    tmp_path_factory: pytest.TempPathFactory, values: list[object], indent: int | None, bom: bool
) -> None:
    folder = tmp_path_factory.mktemp("array")
    (folder / "rows.json").write_text(("\ufeff" if bom else "") + json.dumps(values, indent=indent), encoding="utf-8")
    found = Unpack(folder)((str(folder / "rows.json"), Format.array))
    assert found.damage is None
    assert [json.loads(line) for line in found.path.read_bytes().split(b"\n") if line] == values


def test_arrays_of_rows_are_prepared_like_lines(tmp_path: Path) -> None:
    rows = [nemotron_row(number) for number in range(60)]
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=1))
    prepared(tmp_path / "out", "data=jsonl", "data.fast_tokenizer=false", f"data.paths=[{tmp_path / 'rows.json'}]")
    assert sum(len(lines_of(tmp_path / "out" / f"{name}.jsonl")) for name in ("training", "validation")) == 60


@pytest.mark.parametrize(
    ("content", "cut"),
    [(b'{"a": 1}\n{"a"', 4), (b'{"a": 1}\n{"a": 2}', None), (b'{"a": 1}\n', None), (b'{"a": 1}\nnonsense', None)]
    + [(b'{"a": 1}{"a": 2}', None), (b'{"a": 1},', None)],
)
def test_a_row_that_breaks_off_at_the_end_is_seen(tmp_path: Path, content: bytes, cut: int | None) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    assert cut_line(str(tmp_path / "rows.jsonl")) == cut


def test_a_file_that_changes_is_named_with_both_sizes(tmp_path: Path) -> None:
    from prepared_rows import data_settings

    path = corpus(tmp_path / "rows.jsonl", 5)
    before = snapshot(find_subsets(data_settings("data=jsonl", f"data.paths=[{path}]")))
    check_unchanged(before)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(DataError, match=rf"{size:,} bytes before, {size + 3:,} now"):
        check_unchanged(before)
    path.unlink()
    with pytest.raises(DataError, match="was removed"):
        check_unchanged(before)
