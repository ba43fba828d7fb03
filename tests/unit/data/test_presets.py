"""Presets of conf/data, each on a small file of the shape that its card describes; and mixtures of them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prepared_rows import data_settings, lines_of, prepared
from pyarrow import parquet

from nemo_reasoning.config import CONF_DIR
from nemo_reasoning.config.checks import refuse
from nemo_reasoning.errors import ConfigError

TRACE, ANSWER = "Four plus {n} is more than four, as counting shows.", "It is {n} and four."


def _thought(n: int) -> str:
    return f"<think>\n{TRACE.format(n=n)}\n</think>\n\n{ANSWER.format(n=n)}"


def _asked(n: int) -> str:
    return f"What do we get if we add four to {n}, and why is that so?"


def _post_training(n: int) -> dict[str, Any]:
    on = n % 2 == 0
    turns = [("system", ""), ("user", _asked(n)), ("assistant", _thought(n) if on else ANSWER.format(n=n))]
    return {
        "uuid": f"u{n}",
        "license": "CC BY 4.0",
        "generator": "DeepSeek-R1-0528",
        "version": "v1",
        "category": "math",
        "reasoning": "on" if on else "off",
        "messages": [{"role": role, "content": text, "tool_calls": []} for role, text in turns],
        "metadata": json.dumps({"expected_answer": "8"}),
    }


def _post_training_v2(n: int) -> dict[str, Any]:
    said = _thought(n) if n % 2 == 0 else f"<think>\n\n</think>\n\n{ANSWER.format(n=n)}"
    turns = [("system", ""), ("user", _asked(n)), ("assistant", said)]
    return {
        **{key: f"{key}{n}" for key in ("uuid", "license", "generator", "version", "category")},
        "reasoning": "on" if n % 2 == 0 else "off",
        "messages": [{"role": role, "content": text} for role, text in turns],
    }


def _third_family(n: int) -> dict[str, Any]:
    said = {"role": "assistant", "content": ANSWER.format(n=n), "tool_calls": []}
    return {
        "uuid": f"u{n}",
        "messages": [
            {"role": "user", "content": _asked(n)},
            {**said, **({"reasoning_content": TRACE.format(n=n)} if n % 2 == 0 else {})},
        ],
        "tools": [],
        "license": "cc-by-4.0",
        "used_in": ["Nano_v3"],
        "metadata": {"expected_answer": "8"},
    }


def _open_thoughts(n: int) -> dict[str, Any]:
    turns = [("human", _asked(n)), ("gpt", _thought(n))]
    return {
        "difficulty": 7,
        "source": "stackexchange",
        "domain": "math",
        "conversations": [{"from": role, "value": text} for role, text in turns],
    }


def _open_r1(n: int) -> dict[str, Any]:
    turns = [("user", _asked(n)), ("assistant", _thought(n))]
    return {
        "problem": _asked(n),
        "solution": "Eight.",
        "answer": "8",
        "problem_type": "Algebra",
        "question_type": "math-word-problem",
        "source": "olympiads",
        "uuid": f"u{n}",
        "is_reasoning_complete": [True, True],
        "generations": ["<think>\nNo.\n</think>\n\nNine.", _thought(n)],
        "correctness_math_verify": [False, True],
        "correctness_llama": None,
        "finish_reasons": ["stop", "stop"],
        "correctness_count": 1,
        "messages": [{"role": role, "content": text} for role, text in turns],
    }


def _mixture_of_thoughts(n: int) -> dict[str, Any]:
    turns = [("user", _asked(n)), ("assistant", _thought(n))]
    messages = [{"role": role, "content": text} for role, text in turns]
    return {"messages": messages, "num_tokens": 9, "source": "open-r1/codeforces-cots"}


def _s1k(n: int) -> dict[str, Any]:
    return {
        "solution": "8",
        "question": _asked(n),
        "cot_type": "math",
        "source_type": "qq8933/AIME_1983_2024",
        "metadata": "{'ID': 1}",
        "cot": None,
        "thinking_trajectories": [TRACE.format(n=n)],
        "attempt": ANSWER.format(n=n),
    }


PRESETS: dict[str, tuple[Any, dict[str, str], bool]] = {
    "nemotron_v1": (_post_training, {"math": "data/math-00000-of-00001.parquet"}, True),
    "nemotron_v2": (_post_training_v2, {"math": "data/math-00000-of-00001.parquet"}, True),
    "nemotron_math_v2": (_third_family, {"low": "data/low.jsonl", "high": "data/high.part_00.jsonl"}, True),
    "nemotron_science_v1": (_third_family, {"science": "data/MCQ.jsonl"}, True),
    "nemotron_chat_v1": (_third_family, {"chat": "data/chat.jsonl"}, True),
    "openthoughts3": (_open_thoughts, {"all": "data/train-00000-of-00120.parquet"}, False),
    "openr1_math": (_open_r1, {"math": "data/train-00000-of-00010.parquet"}, False),
    "mixture_of_thoughts": (_mixture_of_thoughts, {"code": "code/train-00000-of-00001.parquet"}, False),
    "s1k": (_s1k, {"all": "data/train-00000-of-00001.parquet"}, False),
}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_reads_the_shape_of_its_set(tmp_path: Path, preset: str) -> None:
    make, files, both = PRESETS[preset]
    for place, path in enumerate(files.values()):
        _write(tmp_path / "set" / path, [make(100 * place + n) for n in range(40)])
    wanted = ", ".join(f"{name}: null" for name in files)
    chosen = (f"data={preset}", f"data.root={tmp_path / 'set'}", f"data.subsets={{{wanted}}}")
    counts = prepared(
        tmp_path / "out", *chosen, "data.fast_tokenizer=false", "data.thinking_off_share=0", "data.validation_share=0.2"
    )["counts"]
    assert counts["outcomes"] == {name: {"kept": 40} for name in files}
    assert counts["unknown_columns"] == {}
    thinking = counts["train"]["thinking_on"] + counts["validation"]["thinking_on"]
    assert thinking == 40 * len(files) // (2 if both else 1)
    lines = [line for name in ("training", "validation") for line in lines_of(tmp_path / "out" / f"{name}.jsonl")]
    for line in lines:
        *_, asked, answer = (turn["content"] for turn in line["messages"])
        n = int(asked.split("four to ")[1].split(",")[0])
        assert asked == _asked(n)
        assert answer in (_thought(n), ANSWER.format(n=n))


def test_every_preset_is_proven() -> None:
    names = {path.stem for path in (CONF_DIR / "data").glob("*.yaml") if not path.stem.startswith("_")}
    assert names == set(PRESETS) | {"builtin", "jsonl", "local", "nemotron", "mix"}


def test_a_mixture_has_its_weights_and_repeats_what_is_too_small(tmp_path: Path) -> None:
    for name, count in (("a", 200), ("b", 30)):
        _write(
            tmp_path / f"{name}.jsonl",
            [_mixture_of_thoughts(1000 * len(name) + n + ord(name) * 500) for n in range(count)],
        )
    layout = [f"+data.layout.{name}=['{tmp_path}/{name}.jsonl']" for name in ("a", "b")]
    chosen = ("data=mix", *layout, "data.mix={a: 3, b: 1}", "data.rows=200", "data.fast_tokenizer=false")
    manifest = prepared(tmp_path / "out", *chosen, "data.filters.languages=[]", "data.validation_share=0.1")
    mix = manifest["counts"]["train"]["mix"]
    assert (mix["a"]["rows"], mix["b"]["rows"]) == (135, 45)
    assert mix["a"]["epochs"] == pytest.approx(1, abs=0.1)
    assert 1.5 <= mix["b"]["epochs"] <= 2
    lines = [line["messages"][1]["content"] for line in lines_of(tmp_path / "out/training.jsonl")]
    assert len(lines) == 180
    assert all(first != second for first, second in zip(lines, lines[1:], strict=False))  # copies lie apart
    held_out = {line["messages"][1]["content"] for line in lines_of(tmp_path / "out/validation.jsonl")}
    assert held_out.isdisjoint(lines)


def test_a_forecast_is_made_of_the_average_row() -> None:
    told = data_settings("data=nemotron").forecast()
    assert told is not None
    assert "75,000" in told
    assert "0.28 GB" in told
    assert data_settings("data=builtin").forecast() is None
    assert data_settings("data=mix", "data.mix={math: 1}", "data.rows=10").wanted_rows == {"math": 10}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("data=mix", "data.rows=null"), "data.rows"),
        (("data=mix", "data.mix={nothing: 1}"), "nothing"),
        *(
            (("data=mix", f"data.mix={{math: {bad}, code: 1}}"), r"data\.mix\.math=.*a number of 0 or above")
            for bad in ("-1", "nan", "inf", "-0.5")
        ),
        *(
            (("data=mix", f"data.mix={{math: {bad}, code: 1}}"), r"data\.mix\.math=.*must be a number")
            for bad in (".nan", "null", "abc", "true", "[1]", "{a: 1}")
        ),
        (("data=mix", "data.mix={1: 1}"), "name 1 must be text"),
        (("data=mix", "data.mix={math: 0, code: 0}"), "above 0"),
        (("data=jsonl", "data.paths=[a]", "data.mix={math: 1}"), "choose data=mix"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        refuse(data_settings(*overrides).problems())
