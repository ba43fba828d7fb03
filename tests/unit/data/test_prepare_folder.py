"""A prepared folder: replaced whole, left alone after a failure, and readable again as a source."""

import json
from pathlib import Path

import pytest
from prepared_rows import corpus, data_settings, formatter, lines_of, nemotron_row, prepared, write_lines

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
    manifest = prepared(tmp_path / "out", *CHOSEN, f"data.paths=[{path}]", "data.rows=50")
    assert not (tmp_path / "out" / "leftover").exists()
    write_lines(path, [nemotron_row(1)])
    with pytest.raises(DataError, match="split is empty"):
        prepared(tmp_path / "out", *CHOSEN, f"data.paths=[{path}]")
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        prepared(tmp_path / "out", *CHOSEN, f"data.paths=[{path}]")
    assert read_manifest(tmp_path / "out") == manifest


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
