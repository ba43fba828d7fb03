"""JSON that no parser reads, and that is no syntax error: endless nesting, endless digits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemo_reasoning.answers import answers_equal
from nemo_reasoning.data.prepare import overlap, unpack
from nemo_reasoning.data.prepare.formats import Format, text_format
from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.benchmarks import files
from nemo_reasoning.evaluation.samples import Evaluation
from nemo_reasoning.inference import generate

ENDLESS = pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000], ids=["nesting", "digits"])


@ENDLESS
@pytest.mark.parametrize(
    "read",
    [
        generate.read_rows,
        Evaluation.load,
        lambda path: list(files.read_rows([path])),
        lambda path: list(overlap._problems(path)),
    ],
    ids=["generate", "samples", "benchmarks", "overlap"],
)
def test_readers_of_lines_name_the_file(text: str, read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": {text}}}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl"):
        read(path)


@ENDLESS
def test_an_array_ends_where_an_element_cannot_be_read(text: str) -> None:
    chunks = iter([f'[{{"a": 1}}, {{"a": {text}}}, '.encode(), b'{"a": 2}]'])
    lines = unpack._array(chunks)
    assert next(lines) == b'{"a": 1}\n'
    with pytest.raises(unpack._CutError):
        next(lines)
    assert next(chunks) == b'{"a": 2}]'  # nothing more was read to find its end


@ENDLESS
def test_an_answer_file_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(f"{text}\n")
    out.with_suffix(".settings.json").write_text("{}")
    with pytest.raises(DataError, match="give another output"):
        generate._claim(out, {}, [{"prompt": "x"}])


@ENDLESS
def test_a_format_is_told_all_the_same(text: str) -> None:
    assert text_format(f'[{{"a": {text}}}]\n'.encode(), "file") is Format.array


def test_endless_repeating_digits_are_no_number() -> None:
    assert not answers_equal(r"0.\overline{" + "3" * 5000 + "}", "5")
