"""Files are known by their bytes; what holds no rows, or has lost some, stops the run by name."""

import bz2
import gzip
import json
import lzma
import re
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from prepared_rows import corpus, lines_of, nemotron_row, prepared

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
}


@pytest.mark.parametrize("content", FOREIGN)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet", "rows.jsonl.gz"])
def test_what_holds_no_rows_is_named_whatever_its_ending(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path / name))}.*{FOREIGN[content]}"):
        format_of(str(tmp_path / name))


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
    [(b'{"a": 1}\n{"a"', 4), (b'{"a": 1}\n{"a": 2}', None), (b'{"a": 1}\n', None), (b'{"a": 1}\nnonsense', None)],
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
