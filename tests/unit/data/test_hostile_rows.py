"""Rows that want more than to be read are kept as text or set aside, and stay in their folder."""

from dataclasses import replace
from pathlib import Path

import pytest
from prepared_rows import data_settings, nemotron_row, prepared, write_lines


def test_rows_stay_rows_whatever_they_say(tmp_path: Path) -> None:
    said = {"role": "user", "content": "\x1b]0;owned\x07 \x00 \u202e What?"}
    plain = {"input": [said], "output": "4", "reasoning": "off", "system_prompt": "detailed thinking off"}
    hostile = [
        {**plain, "id": "../../../stolen", "license": "<script>alert(1)</script>"},
        {**plain, "category": "../../stolen", "generator": "\x1b[2J"},
        {**plain, "input": [{**said, "role": "../../\x1b[2Jsystem"}]},
        {**plain, "input": [{**said, "content": "x" * 17_000_000}]},
    ]
    deep = b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    good = [nemotron_row(number) for number in range(60)]
    rows = write_lines(tmp_path / "in" / "rows.jsonl", [*good, *hostile, deep])
    out = tmp_path / "out" / "data"
    chosen = ("data=jsonl", f"data.paths=[{rows}]", "data.fast_tokenizer=false", "data.workers=1")
    counts = prepared(out, *chosen, "data.max_quarantined_share=1")["counts"]
    assert counts["read"] == sum(sum(ends.values()) for ends in counts["outcomes"].values()) == 65
    assert counts["quarantined"] == 3
    assert {path.name for path in out.parent.iterdir()} == {"data", ".data.lock"}
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
    assert "<script>alert" not in (out / "report.html").read_text(encoding="utf-8")
    assert "\x1b" not in (out / "quarantine.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["../out", "/tmp/out", ".hidden", "a/b"])
def test_names_of_subsets_are_no_paths(name: str) -> None:
    problems = replace(data_settings("data=jsonl", "data.paths=[a]"), subsets={name: None}).problems()
    assert problems == [f"data.layout, subsets or mix has the name {name}: no slash, and no dot at its beginning"]
