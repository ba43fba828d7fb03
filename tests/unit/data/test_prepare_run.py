import pickle
from pathlib import Path

import pytest
from prepared_rows import corpus, data_settings, digests, formatter, lines_of, nemotron_row, prepared, write_lines

from nemo_reasoning.artifacts import read_manifest
from nemo_reasoning.data.prepare import units
from nemo_reasoning.data.prepare.worker import MakeShard
from nemo_reasoning.data.store import TokenStore
from nemo_reasoning.errors import DataError

SMALL_UNITS = ("data=jsonl", "data.shard_mb=1", "data.fast_tokenizer=false")


def test_every_row_is_accounted_for_and_every_file_is_in_the_manifest(tmp_path: Path) -> None:
    path = corpus(tmp_path / "rows.jsonl", 300)
    manifest = prepared(tmp_path / "out", *SMALL_UNITS, f"data.paths=[{path}]", "data.filters.used_in_training=nano")
    counts = manifest["counts"]
    assert sum(counts["outcomes"]["rows"].values()) == counts["read"] == 300
    assert counts["outcomes"]["rows"]["used_in_training"] == 150
    assert counts["kept"] == counts["train"]["rows"] + counts["validation"]["rows"]
    assert sum(group["rows"] for group in counts["groups"]) == counts["kept"]
    assert sum(counts["licenses"]["rows"].values()) == counts["kept"]
    on_disk = digests(tmp_path / "out")
    del on_disk["manifest.json"]
    assert {name: facts["sha256"] for name, facts in manifest["files"].items()} == on_disk


def test_stores_and_messages_describe_the_same_rows(tmp_path: Path) -> None:
    path = corpus(tmp_path / "rows.jsonl", 200)
    manifest = prepared(tmp_path / "out", *SMALL_UNITS, f"data.paths=[{path}]")
    for split, name in (("train", "training.jsonl"), ("validation", "validation.jsonl")):
        store, lines = TokenStore.open(tmp_path / "out" / split), lines_of(tmp_path / "out" / name)
        assert len(store) == len(lines) == manifest["counts"][split]["rows"]
        for row, line in zip(store, lines, strict=True):
            said = line["messages"][-1]["content"].encode()
            assert row.loss_mask.sum() == len(said) + 1  # one token a byte, and the end of the turn


@pytest.mark.parametrize("sampling", ["block", "reservoir", "head"])
def test_output_does_not_depend_on_workers(tmp_path: Path, sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_SMALL", 0)  # as if the file were too large to be drawn from row by row
    path = corpus(tmp_path / "rows.jsonl", 3000)
    chosen = (*SMALL_UNITS, f"data.paths=[{path}]", f"data.sampling={sampling}", "data.rows=1500", "data.block_kb=8")
    for workers in (1, 2, 8):
        prepared(tmp_path / f"{workers}" / "out", *chosen, f"data.workers={workers}")
    one, two, eight = (digests(tmp_path / f"{workers}" / "out") for workers in (1, 2, 8))
    assert one == two == eight
    assert read_manifest(tmp_path / "1" / "out")["counts"]["kept"] == 1500


def test_a_prepared_folder_is_used_again_until_rows_or_settings_change(tmp_path: Path) -> None:
    path = corpus(tmp_path / "rows.jsonl", 100)
    chosen = (*SMALL_UNITS, f"data.paths=[{path}]")
    first = prepared(tmp_path / "out", *chosen)
    written = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    assert prepared(tmp_path / "out", *chosen, "data.workers=2") == first
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == written
    assert prepared(tmp_path / "out", *chosen, "data.seed=18") != first
    write_lines(path, [nemotron_row(number, seed=1) for number in range(100)])
    assert prepared(tmp_path / "out", *chosen)["inputs"] != first["inputs"]
    assert not list(tmp_path.glob(".out.work-*"))


def test_too_many_unusable_rows_stop_the_run_and_are_listed(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [*(nemotron_row(number) for number in range(20)), b"{", b"[]"])
    with pytest.raises(DataError, match=r"2 of 22 rows are unusable \(1 x not JSON, 1 x not an object\)"):
        prepared(tmp_path / "out", *SMALL_UNITS, f"data.paths=[{path}]")
    assert not (tmp_path / "out").exists()
    assert [row["line"] for row in lines_of(tmp_path / "out.quarantine.jsonl")] == [21, 22]


def test_too_few_rows_are_reported_and_an_empty_split_is_refused(tmp_path: Path) -> None:
    path = corpus(tmp_path / "rows.jsonl", 60)
    manifest = prepared(tmp_path / "out", *SMALL_UNITS, f"data.paths=[{path}]", "data.rows=100", seq_length=2**16)
    assert manifest["counts"]["kept"] == 60
    with pytest.raises(DataError, match="the validation split is empty"):
        prepared(tmp_path / "out", *SMALL_UNITS, f"data.paths=[{path}]", "data.validation_share=0")


def test_curriculum_goes_from_short_to_long_completions(tmp_path: Path) -> None:
    path = corpus(tmp_path / "rows.jsonl", 400)
    prepared(tmp_path / "out", *SMALL_UNITS, f"data.paths=[{path}]", "data.order=curriculum")
    store = TokenStore.open(tmp_path / "out" / "train")
    lines = lines_of(tmp_path / "out" / "training.jsonl")
    for mode in ("on", "off"):
        chosen = [line["messages"][0]["content"].startswith(f"detailed thinking {mode}") for line in lines]
        lengths = [int(row.loss_mask.sum()) for row, wanted in zip(store, chosen, strict=True) if wanted]
        assert lengths == sorted(lengths)
        assert 0.4 < sum(chosen[: len(chosen) // 2]) / sum(chosen) < 0.6  # spread evenly


def test_one_question_is_never_in_both_splits_and_the_switch_is_a_property_of_the_row(tmp_path: Path) -> None:
    rows = [
        nemotron_row(
            number % 50,
            output=f"<think>\n{number}\n</think>\n\nIt is {number}.",
            reasoning="on",
            system_prompt="detailed thinking on",
        )
        for number in range(400)
    ]
    path, reversed_path = write_lines(tmp_path / "a.jsonl", rows), write_lines(tmp_path / "b.jsonl", rows[::-1])
    for name, file in (("a", path), ("b", reversed_path)):
        prepared(tmp_path / name, *SMALL_UNITS, f"data.paths=[{file}]", "data.validation_share=0.3")
    for name in ("training.jsonl", "validation.jsonl", "train/tokens.npy"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    train, validation = (
        {line["messages"][1]["content"] for line in lines_of(tmp_path / "a" / name)}
        for name in ("training.jsonl", "validation.jsonl")
    )
    assert not train & validation
    off = read_manifest(tmp_path / "a")["counts"]["groups"][1]
    assert off["mode"] == "off"
    assert 0.2 < off["turned_off"] / 400 < 0.4


def test_what_made_one_shard_here_can_go_to_workers(tmp_path: Path) -> None:
    make = MakeShard(data_settings("data=builtin"), formatter(), 256, None, tmp_path)
    vars(make)["_encoder"] = memoryview(b"")  # stands for tokie's tokenizer, which cannot be pickled either
    copy = pickle.loads(pickle.dumps(make))
    assert (copy.data, copy.seq_length, copy.folder) == (make.data, make.seq_length, make.folder)
    assert "_encoder" not in vars(copy)
