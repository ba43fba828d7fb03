"""Prompts, files and chats, from settings to what is printed."""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from composing import composed
from rich.console import Console

from nemo_reasoning.config import load_settings
from nemo_reasoning.config.inference import GenerateSettings
from nemo_reasoning.errors import DataError
from nemo_reasoning.inference.chat_cli import Chat
from nemo_reasoning.inference.generate import generate, read_rows, request_of
from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.reasoning.sampling import Sampling

QUESTION = "What is 2 times 21?"
SMALL = ["engine.dtype=float32", "engine.device=cpu", "max_new_tokens=80", "temperature=0"]


def settings(model: Path | str, *overrides: str) -> GenerateSettings:
    return load_settings(composed(f"checkpoint={model}", *SMALL, *overrides, root="generate"), GenerateSettings)


def test_one_prompt(taught_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(settings(taught_llama, f"prompt='{QUESTION}'"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["2 * 20 = 40", "", "The answer is 42."]
    assert "tokens, 13 of thinking" in lines[3]


def test_a_vote(taught_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(settings(taught_llama, f"prompt='{QUESTION}'", "scaling=vote", "n=5", "temperature=0.3"))
    told = capsys.readouterr().out
    assert "The answer is 42." in told
    assert "answer 42  votes 42: 3  3 samples" in told


def test_a_file(taught_llama: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": QUESTION, "id": 7},
        {"messages": [{"role": "user", "content": QUESTION}]},
    ]
    source = tmp_path / "questions.jsonl"
    source.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    generate(settings(taught_llama, f"input={source}", "reasoning=off"))
    answers = [json.loads(line) for line in (tmp_path / "questions.answers.jsonl").read_text().splitlines()]
    assert [answer["answer"] for answer in answers] == ["It is 43.", "It is 43."]
    assert answers[0].items() >= {"id": 7, "prompt": QUESTION, "finish_reason": "stop", "reasoning_tokens": 0}.items()
    generate(settings(taught_llama, f"input={source}", f"output={tmp_path}/v.jsonl", "scaling=extend", "n=2"))
    [first, _] = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert first["final_answer"] == "42"
    assert first["samples"] == 2


def test_columns_stay_and_a_killed_run_goes_on(
    taught_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = {"note": "a\u2028b", "x": math.nan, "messages": None, "half": "\ud83d"}
    rows = [{"prompt": QUESTION, "answer": str(number), **odd} for number in range(4)]
    source, out = tmp_path / "rows.jsonl", tmp_path / "rows.answers.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = settings(taught_llama, f"input={source}", "temperature=0.8")
    generate(asked)
    assert "answer already; the model's are model_answer" in capsys.readouterr().out
    whole = out.read_text()
    answers = [json.loads(line) for line in whole.split("\n")[:-1]]
    assert [answer["answer"] for answer in answers] == ["0", "1", "2", "3"]
    assert all(isinstance(answer["model_answer"], str) for answer in answers)
    first, second, *_ = whole.split("\n")
    assert json.loads(first)["half"] == "\ud83d"
    changed = json.dumps(json.loads(first) | {"model_answer": "kept"})
    out.write_text(changed + "\n" + second[: len(second) // 2])
    generate(asked)
    assert out.read_text().split("\n")[0] == changed  # not asked again
    assert out.read_text().split("\n")[1:] == whole.split("\n")[1:]
    with pytest.raises(DataError, match="made with another request.*output="):
        generate(settings(taught_llama, f"input={source}", "temperature=0.9"))
    source.write_text(source.read_text().replace("2", "5"))
    with pytest.raises(DataError, match="of other rows.*output="):
        generate(asked)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no row"),
        ("{\n", "rows.jsonl:1 is no JSON"),
        ('{"prompt": "a"}\n{"question": "b"}\n', "rows.jsonl:2"),
        ('{"messages": null}', "rows.jsonl:1 has neither"),
        ('{"prompt": "\\ud83d"}', "rows.jsonl:1: a text holds half of a character"),
        ('{"messages": []}', "rows.jsonl:1: a turn has"),
        ('{"messages": [{"role": "user"}]}', "rows.jsonl:1: a turn has"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "user, assistant"),
    ],
)
def test_a_file_without_questions_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_rows(path)
    with pytest.raises(DataError, match="No such file"):
        read_rows(tmp_path / "none.jsonl")


def test_settings_become_a_request() -> None:
    on = request_of(load_settings(composed("checkpoint=x", "effort=low", root="generate"), GenerateSettings))
    off = request_of(load_settings(composed("checkpoint=x", "reasoning=off", root="generate"), GenerateSettings))
    assert (on.mode, on.thinking_budget, on.sampling) == ("on", 512, Sampling(0.6, 0.95))
    assert (off.mode, off.thinking_budget, off.sampling) == ("off", None, Sampling())


@pytest.mark.parametrize("question", ["x" * 600, "x" * 400])  # too long by itself, and with its answer
def test_a_question_that_is_too_long_is_named(taught_llama: Path, tmp_path: Path, question: str) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in ("a", question)))
    with pytest.raises(DataError, match="question 2 of .*rows.jsonl"):
        generate(settings(taught_llama, f"input={source}"))
    assert not (tmp_path / "rows.answers.jsonl").exists()


@pytest.fixture(scope="module")
def engine(taught_llama: Path) -> Iterator[HFEngine]:
    engine = HFEngine(taught_llama, dtype="float32", device="cpu")
    yield engine
    engine.close()


def chat(engine: HFEngine, lines: list[str]) -> str:
    typed = iter(lines)
    prompts: list[str] = []

    def read(prompt: str) -> str:
        prompts.append(prompt)
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard", highlight=False, soft_wrap=True)
    Chat(engine, request_of(settings("x")), console=console, read=read).run()
    return out.getvalue() + "".join(prompts)


def test_a_chat_dims_the_thinking_and_counts(engine: HFEngine) -> None:
    told = chat(engine, [QUESTION])
    assert "\x1b[2m2\x1b[0m" in told
    assert "\x1b[2mT\x1b[0m" not in told
    plain = told.replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert "2 * 20 = 40\n\nThe answer is 42.\n" in plain
    assert "13 of thinking" in plain
    assert "[thinking] > " in plain


def test_a_chat_switches_modes(engine: HFEngine) -> None:
    told = chat(
        engine, ["/no_think", QUESTION, "/new", "/budget 5", QUESTION, "/budget off", "/think", "/what", "/exit"]
    )
    plain = told.replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert "It is 43." in plain
    assert "5 of thinking" in plain
    for state in ("[no thinking] > ", "[thinking, 5 tokens at most] > ", "[thinking] > "):
        assert state in plain
    assert plain.count("/budget N") == 2


def test_a_chat_remembers_until_the_context_is_full(engine: HFEngine) -> None:
    told = chat(engine, ["x" * 200, "y" * 200, "/new", QUESTION])
    assert "context length is 512" in told
    assert "/new forgets what was said" in told
    assert "The answer is" in told
