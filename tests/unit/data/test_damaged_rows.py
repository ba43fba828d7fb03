import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from prepared_rows import corpus, lines_of, nemotron_row, prepared, write_lines
from pyarrow import parquet

from nemo_reasoning.errors import DataError

CHOSEN = ("data=jsonl", "data.fast_tokenizer=false", "data.max_quarantined_share=1", "data.damaged_files=keep")
GOOD = [nemotron_row(number) for number in range(40)]
USER = {"role": "user", "content": "Why?"}
SYSTEM = {"role": "system", "content": "Be brief."}
DAMAGED = {
    "not JSON": [
        b'{"input": nonsense}',
        b'{"input": "cut',
        b"\0\0\0",
        b'{"input": "a\0b", "output": "c"}',
        b"[" * 100_000,
        b"9" * 5000,
    ],
    "not UTF-8": [b'{"input": "\xff", "output": "b"}'],
    "not an object": [b"[1, 2]", b"3"],
    "wrong type": [
        nemotron_row(100, input=7),
        nemotron_row(101, output=[5]),
        nemotron_row(102, input=[]),
        nemotron_row(103, input=[{"role": "user", "content": 5}]),
    ],
    "empty user turn": [nemotron_row(108, input=[{"role": "user", "content": None}])],
    "missing keys": [{"output": "alone"}, {}],
    "turns do not alternate": [nemotron_row(104, input=[USER, USER], system_prompt="")],
    "unsupported part": [nemotron_row(105, input=[{"role": "user", "content": [{"type": "image_url"}]}])],
}


def test_twelve_kinds_of_damage_in_one_file_are_all_accounted_for(tmp_path: Path) -> None:
    damaged = [row for rows in DAMAGED.values() for row in rows]
    a_megabyte = nemotron_row(106, output="word " * 2**18, reasoning="off", system_prompt="")
    windows = json.dumps(nemotron_row(107)).encode() + b"\r"
    rows = [*GOOD, *damaged, a_megabyte, windows, b"", b"\r", GOOD[0]]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b'{"input": "no line end')
    manifest = prepared(tmp_path / "out", *CHOSEN, f"data.paths=[{path}]", seq_length=2**16)
    outcomes = manifest["counts"]["outcomes"]["rows"]
    wanted = {f"quarantined: {reason}": len(rows) for reason, rows in DAMAGED.items()}
    wanted["quarantined: not JSON"] += 1  # the last line
    assert outcomes == {**wanted, "kept": 41, "max_tokens": 1, "exact_duplicates": 1}
    listed = lines_of(tmp_path / "out" / "quarantine.jsonl")
    lines = path.read_bytes().split(b"\n")
    assert len(listed) == sum(wanted.values())
    for row in listed:
        assert row["file"] == str(path)
        assert path.read_bytes()[row["byte"] :].startswith(lines[row["line"] - 1])
        assert row["reason"] in DAMAGED


def test_line_numbers_go_on_over_units(tmp_path: Path) -> None:
    rows: list[object] = [nemotron_row(number) for number in range(4000)]
    rows[3500] = b"{"
    path = write_lines(tmp_path / "rows.jsonl", rows)
    assert path.stat().st_size > 2**20  # more than one unit
    prepared(tmp_path / "out", *CHOSEN, f"data.paths=[{path}]", "data.shard_mb=1")
    assert [row["line"] for row in lines_of(tmp_path / "out" / "quarantine.jsonl")] == [3501]


@pytest.mark.parametrize("suffix", ["gz", "zst", "parquet"])
def test_packed_files_give_the_rows_of_the_plain_one(tmp_path: Path, suffix: str) -> None:
    plain = corpus(tmp_path / "rows.jsonl", 200)
    packed = tmp_path / f"rows.jsonl.{suffix}"
    _pack(plain, packed)
    for name, path in (("plain", plain), ("packed", packed)):
        prepared(
            tmp_path / name,
            *CHOSEN,
            f"data.paths=[{path}]",
            "data.rows=100",
            "data.sampling=reservoir",
            "data.messages=false",
        )
    stores = ["train/tokens.npy", "train/loss_mask.npy", "validation/tokens.npy"]
    if suffix == "parquet":  # its rows are other bytes, so others are sampled
        assert (tmp_path / "packed" / "train/tokens.npy").stat().st_size > 1000
    else:
        assert all((tmp_path / "plain" / s).read_bytes() == (tmp_path / "packed" / s).read_bytes() for s in stores)


@pytest.mark.parametrize("suffix", ["gz", "zst", "parquet"])
def test_a_cut_archive_is_noticed(tmp_path: Path, suffix: str) -> None:
    packed = tmp_path / f"rows.jsonl.{suffix}"
    _pack(corpus(tmp_path / "rows.jsonl", 3000), packed)
    packed.write_bytes(packed.read_bytes()[: -(packed.stat().st_size // 3)])
    chosen = ("data=jsonl", f"data.paths=[{corpus(tmp_path / 'good.jsonl', 50, seed=3)},{packed}]")
    size = packed.stat().st_size
    with pytest.raises(DataError, match=rf"rows\.jsonl\.{suffix} \({size:,} bytes\) is .*cut"):
        prepared(tmp_path / "out", *chosen)
    if suffix == "parquet":
        return  # without its end nothing of it can be read
    counts = prepared(tmp_path / "out", *CHOSEN, *chosen[1:])["counts"]
    assert 50 + 500 < counts["kept"] < 50 + 3000
    (row,) = lines_of(tmp_path / "out" / "quarantine.jsonl")
    assert (row["reason"], row["file"]) == ("damaged archive", str(packed))


def _pack(plain: Path, packed: Path) -> None:
    if packed.suffix == ".parquet":
        rows = [{**row, "used_in_training": "yes"} for row in lines_of(plain)]
        parquet.write_table(pa.Table.from_pylist(rows), packed, row_group_size=50)
    elif packed.suffix == ".gz":
        packed.write_bytes(gzip.compress(plain.read_bytes()))
    else:
        half = len(plain.read_bytes()) // 2
        content = plain.read_bytes()
        packed.write_bytes(zstandard.compress(content[:half]) + zstandard.compress(content[half:]))
