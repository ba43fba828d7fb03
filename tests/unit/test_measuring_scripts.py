"""The scripts that measure can be imported, say what they do, and write the rows they measure with."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from nemo_reasoning.data.schemas.rows import parse_row

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = [path.name for path in sorted(BENCHMARKS.glob("*.py")) if "argparse" in path.read_text(encoding="utf-8")]


@pytest.fixture(autouse=True)
def beside_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "lm_eval_parity.py"])
def test_help_names_a_quick_run(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    assert "--quick" in capsys.readouterr().out


def test_rows_are_those_of_the_dataset(tmp_path: Path) -> None:
    from corpus import write_corpus
    from train_cpu import write_rows

    write_corpus(tmp_path / "corpus.jsonl", megabytes=0.1)
    write_rows(tmp_path / "rows.jsonl", count=20, mean=2000)
    for name, least, modes in (("corpus", 10, {"on", "off"}), ("rows", 20, {"on"})):
        lines = (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [parse_row(json.loads(line), origin=name) for line in lines]
        assert len(rows) >= least
        assert {row.mode for row in rows} == modes
        for row in rows:
            roles = [turn.role for turn in row.messages]
            assert roles[-2:] == ["user", "assistant"]
            assert row.messages[-1].content.startswith("<think>") == (row.mode == "on")
