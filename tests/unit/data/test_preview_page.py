import io
from pathlib import Path
from typing import Any

import pytest
from prepared_rows import corpus, data_settings, formatter, nemotron_row, prepared, write_lines
from rich.console import Console

from nemo_reasoning.data.prepare.pipeline import prepare_data, preview_data
from nemo_reasoning.data.prepare.preview import show, write_page
from nemo_reasoning.errors import DataError
from nemo_reasoning.preparation import teller


def test_preview_marks_what_is_trained_on_in_terminal_and_page(tmp_path: Path) -> None:
    corpus(tmp_path / "hub/SFT/math/a.jsonl", 40)
    write_lines(
        tmp_path / "hub/SFT/code/a.jsonl",
        [
            nemotron_row(number, output=f"print('<b>{number}</b>')", reasoning="off", system_prompt="")
            for number in range(3)
        ],
    )
    data = data_settings(
        "data=local",
        f"data.root={tmp_path / 'hub'}",
        "data.subsets={math: 30, code: 3}",
        "data.fast_tokenizer=false",
        "data.filters.languages=[]",
        "data.sampling=reservoir",
    )
    samples = preview_data(data, formatter=formatter(), seq_length=2048, count=5)
    assert [sample.subset for sample in samples[:4]] == ["code", "math", "code", "math"]
    for sample in samples:
        (before, _), (answer, _), (after, _) = sample.pieces
        assert [supervised for _, supervised in sample.pieces] == [False, True, False]
        assert before.endswith("<|im_start|>assistant\n")
        assert answer.endswith("<|im_end|>")
        assert after == "\n"
        assert sample.supervised == len(answer.removesuffix("<|im_end|>").encode()) + 1
    shown = io.StringIO()
    show(samples, Console(file=shown, force_terminal=True, color_system="standard", width=200))
    assert "\x1b[30;42mprint(" in shown.getvalue()
    write_page(samples, tmp_path / "preview.html")
    page = (tmp_path / "preview.html").read_text()
    assert "<mark>print(&#39;&lt;b&gt;" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "preview.html"]


def test_the_report_shows_every_outcome_and_licence(tmp_path: Path) -> None:
    path = corpus(tmp_path / "rows.jsonl", 100)
    manifest = prepared(
        tmp_path / "out",
        "data=jsonl",
        f"data.paths=[{path}]",
        "data.fast_tokenizer=false",
        "data.filters.generators=[DeepSeek-R1]",
    )
    page = (tmp_path / "out" / "report.html").read_text()
    dropped = manifest["counts"]["outcomes"]["rows"]["generators"]
    assert f'<td>generators</td><td class="number">{dropped}</td>' in page
    assert all(license in page for license in ("CC-BY-4.0", "Apache-2.0", "MIT"))
    assert (tmp_path / "out" / "lengths.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/png;base64," in page


@pytest.mark.parametrize(
    ("row", "proposal"),
    [
        ({"Frage": "was?", "Antwort": "so und so"}, "data.columns.answer=Antwort data.columns.question=Frage"),
        ({"Frage": "Was ist das?", "Antwort": "so"}, "data.columns.answer=Antwort data.columns.question=Frage"),
        (
            {"inst": "say it", "resp": "a", "cot_text": "c d"},
            "answer=resp data.columns.question=inst data.columns.trace=cot_text",
        ),
        ({"问题": "四加四等于几", "答案": "八"}, "data.columns.answer=答案 data.columns.question=问题"),
        (
            {"q": "a", "a": "bb", "my_thoughts": "c d"},
            "answer=a data.columns.question=q data.columns.trace=my_thoughts",
        ),
        (
            {"id": "1", "question_id": "7", "query_text": "a", "gold": "b c"},
            "answer=gold data.columns.question=query_text",
        ),
        ({"User Ask": "a", "Reply": "b"}, "data.columns.answer=Reply 'data.columns.question=\"User Ask\"'"),
        (
            {"talk": [{"who": "user", "text": "a"}]},
            "data.columns.turns=talk data.columns.role=who data.columns.content=text",
        ),
        (
            {"talk": '[{"role": "user", "content": "a"}]'},
            "turns=talk data.columns.role=role data.columns.content=content",
        ),
        ({"text": "only this"}, None),
        ({"talk": ["a", "b"]}, None),
    ],
)
def test_a_preview_proposes_names_of_unknown_columns(tmp_path: Path, row: dict[str, Any], proposal: str | None) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [row] * 3)
    data = data_settings("data=jsonl", "data.fast_tokenizer=false", f"data.paths=[{path}]")
    with pytest.raises(DataError) as caught:
        preview_data(data, formatter=formatter(), seq_length=2048, count=2)
    assert "missing keys" in str(caught.value)
    assert ("these columns may fit" in str(caught.value)) == (proposal is not None)
    assert proposal is None or proposal in str(caught.value)


def test_a_mode_that_loses_more_than_half_of_its_rows_to_one_filter_is_told_in_yellow(tmp_path: Path) -> None:
    rows = [nemotron_row(number) for number in range(60)]
    for row in rows:
        row["license"] = "MIT" if row["reasoning"] == "off" else "other"
    path = write_lines(tmp_path / "rows.jsonl", [*rows, nemotron_row(99, license="MIT", reasoning="on")])
    data = data_settings(
        "data=jsonl",
        f"data.paths=[{path}]",
        *("data.fast_tokenizer=false", "data.filters.licenses=[MIT]", "data.validation_share=0.3"),
    )
    shown = io.StringIO()
    tell = teller(Console(file=shown, force_terminal=True, color_system="standard", width=200))
    prepare_data(data, formatter=formatter(), seq_length=2048, out=tmp_path / "out", tell=tell)
    (yellow,) = (line for line in shown.getvalue().splitlines() if line.startswith("\x1b[33m"))
    assert yellow.startswith("\x1b[33mwarning: rows, thinking on: licenses took")
