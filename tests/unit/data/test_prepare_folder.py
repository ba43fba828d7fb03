"""A prepared folder: replaced whole, left alone after a failure, and readable again as a source."""

import json
from pathlib import Path

import pytest
from prepared_rows import corpus, data_settings, digests, formatter, lines_of, nemotron_row, prepared, write_lines

from nemo_reasoning.artifacts import read_manifest
from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.prepare.pipeline import prepare_data
from nemo_reasoning.data.schemas.rows import parse_row
from nemo_reasoning.data.store import TokenStore
from nemo_reasoning.errors import DataError, TemplateError

CHOSEN = ("data=jsonl", "data.fast_tokenizer=false", "data.validation_share=0.3")
SPLITS = {"train": "training.jsonl", "validation": "validation.jsonl"}


def test_rows_are_tokenised_as_they_are_written(tmp_path: Path) -> None:
    prepared(tmp_path / "out", *CHOSEN, f"data.paths=[{corpus(tmp_path / 'rows.jsonl', 60)}]")
    for split, name in SPLITS.items():
        lines, store = lines_of(tmp_path / "out" / name), TokenStore.open(tmp_path / "out" / split)
        for line, stored in zip(lines, store, strict=True):
            expected = formatter().encode(parse_row(line, origin="a:1").messages)
            assert stored.ids.tolist() == expected.ids.tolist()
            assert stored.loss_mask.tolist() == expected.loss_mask.tolist()


def test_a_prepared_split_can_be_prepared_again(tmp_path: Path) -> None:
    prepared(tmp_path / "first", *CHOSEN, f"data.paths=[{corpus(tmp_path / 'rows.jsonl', 60)}]")
    path = tmp_path / "first" / "training.jsonl"
    prepared(tmp_path / "again", *CHOSEN, f"data.paths=[{path}]", "data.thinking_off_share=0", "data.seed=3")
    after = {json.dumps(line) for name in SPLITS.values() for line in lines_of(tmp_path / "again" / name)}
    assert after == {json.dumps(line) for line in lines_of(path)}


def test_a_folder_is_replaced_whole_or_left_alone(tmp_path: Path) -> None:
    path = corpus(tmp_path / "rows.jsonl", 60)
    prepared(tmp_path / "out", *CHOSEN, f"data.paths=[{path}]")
    (tmp_path / "out" / "leftover").touch()
    with pytest.raises(DataError, match="holds leftover, which no preparation wrote"):
        prepared(tmp_path / "out", *CHOSEN, f"data.paths=[{path}]", "data.rows=50")
    (tmp_path / "out" / "leftover").unlink()
    manifest = prepared(tmp_path / "out", *CHOSEN, f"data.paths=[{path}]", "data.rows=50")
    write_lines(path, [nemotron_row(1)])
    with pytest.raises(DataError, match="split is empty"):
        prepared(tmp_path / "out", *CHOSEN, f"data.paths=[{path}]")
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        prepared(tmp_path / "out", *CHOSEN, f"data.paths=[{path}]")
    assert read_manifest(tmp_path / "out") == manifest


@pytest.mark.parametrize("damaged", ["train/tokens.npy", "validation/offsets.npy", "training.jsonl", "report.html"])
@pytest.mark.parametrize("kind", ["removed", "cut", "unknown manifest"])
def test_a_damaged_folder_is_prepared_again_and_says_so(tmp_path: Path, damaged: str, kind: str) -> None:
    settings = data_settings(*CHOSEN, f"data.paths=[{corpus(tmp_path / 'rows.jsonl', 30)}]")
    out, told = tmp_path / "out", list[str]()
    once = {"formatter": formatter(), "seq_length": 2048, "out": out, "tell": told.append}
    prepare_data(settings, **once)
    whole = digests(out)
    if kind == "removed":
        (out / damaged).unlink()
    elif kind == "cut":
        (out / damaged).write_bytes((out / damaged).read_bytes()[:-1])
    else:
        (out / "manifest.json").write_text("[]")
    prepare_data(settings, **once)
    assert digests(out) == whole
    assert kind == "unknown manifest" or any(damaged in line and "prepared again" in line for line in told)


def test_what_no_preparation_wrote_is_not_replaced(tmp_path: Path) -> None:
    chosen = (*CHOSEN, f"data.paths=[{corpus(tmp_path / 'rows.jsonl', 30)}]")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder/train").mkdir(parents=True)
    (tmp_path / "folder/train/notes.txt").write_text("mine")
    with pytest.raises(DataError, match="file is a file"):
        prepared(tmp_path / "file", *chosen)
    with pytest.raises(DataError, match="folder is to be replaced, but holds train/notes.txt"):
        prepared(tmp_path / "folder", *chosen)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder/train/notes.txt").read_text() == "mine"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    prepared(tmp_path / "link", *chosen)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere/manifest.json").is_file()


def test_an_unsuitable_template_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    template = formatter().template.replace("+ '<|im_end|>' -}}{%- endgen", "-}}{%- endgen")
    unsuitable = ChatFormatter(formatter().tokenizer, template)
    with pytest.raises(TemplateError, match="end-of-turn"):
        prepare_data(data_settings(), formatter=unsuitable, seq_length=99, out=tmp_path / "out", tell=print)
    assert not list(tmp_path.iterdir())


@pytest.mark.smoke
def test_the_builtin_problems_are_prepared(tmp_path: Path) -> None:
    counts = prepared(tmp_path / "new" / "out", "data.rows=300", "data.fast_tokenizer=false")["counts"]
    assert counts["train"]["rows"] + counts["validation"]["rows"] == counts["read"] == 300
    off = 300 - counts["train"]["thinking_on"] - counts["validation"]["thinking_on"]
    assert off / 300 == pytest.approx(0.3, abs=0.06)
