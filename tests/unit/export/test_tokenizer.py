"""The exported tokenizer and template do what training's did."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import llama3_tokenizer, save_tiny_llama
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.errors import TemplateError, VerificationError
from nemo_reasoning.export import tokenizer_probe, verify
from nemo_reasoning.export.from_run import tokenizer_interpreter
from nemo_reasoning.export.tokenizer import strip_generation, write_tokenizer
from nemo_reasoning.models.hub import BaseModel

TEMPLATES = {"chatml": None, "llama3": llama3_tokenizer}


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_tokenizer_encodes_as_in_training(tmp_path: Path, name: str) -> None:
    maker = TEMPLATES[name]
    path = save_tiny_llama(tmp_path / "base", tokenizer=maker() if maker else None)
    formatter = ChatFormatter.load(path, template=load_template(name))
    write_tokenizer(formatter, out=tmp_path / "out")
    exported = AutoTokenizer.from_pretrained(tmp_path / "out")  # type: ignore[no-untyped-call]
    assert type(exported) is PreTrainedTokenizerFast
    assert "generation %" not in exported.chat_template
    assert exported.eos_token_id == formatter.end_of_turn
    dialogues = [[message.to_dict() for message in turns] for turns in verify.DIALOGUES]
    seen, expected = (
        tokenizer_probe.observe(tokenizer, template=template, dialogues=dialogues, texts=list(verify.TEXTS))
        for tokenizer, template in ((exported, None), (formatter.tokenizer, formatter.template))
    )
    assert seen == expected
    if name == "llama3":
        assert all(ids.count(exported.bos_token_id) == 1 for ids in seen["prompt_ids"])


@pytest.mark.parametrize(
    "tag",
    ["{% generation %}", "{%- generation %}", "{% generation -%}", "{%- generation -%}", "{%+generation%}"],
)
def test_stripping_generation_tags_keeps_the_text(base: BaseModel, tag: str) -> None:
    end = tag.replace("generation", "endgeneration")
    template = (
        "{% for m in messages %}\n <{{ m.role }}> \n " + tag + " \n {{ m.content }}\n\n  " + end + " \n|{% endfor %}"
    )
    tokenizer = AutoTokenizer.from_pretrained(base.path)  # type: ignore[no-untyped-call]
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    stripped = strip_generation(template)
    assert "generation" not in stripped
    texts = [tokenizer.apply_chat_template(turns, chat_template=t, tokenize=False) for t in (template, stripped)]
    assert texts[0] == texts[1]


def test_an_end_of_turn_that_is_no_token_is_refused(base: BaseModel) -> None:
    template = "{% for m in messages %}{% generation %}{{ m.content }}END{% endgeneration %}{% endfor %}"
    with pytest.raises(TemplateError, match="no end-of-turn token"):
        _ = ChatFormatter.load(base.path, template=template).end_of_turn


def test_the_interpreter_of_make_setup_is_taken_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [tokenizer_interpreter(asked) for asked in ("auto", None, "other")] == [None, None, Path("other")]

    python = Path(".venv-verify/bin/python")
    python.parent.mkdir(parents=True)
    python.touch()
    assert tokenizer_interpreter("auto") == python


def test_an_old_interpreter_proves_nothing(base: BaseModel, tmp_path: Path) -> None:
    formatter = ChatFormatter.load(base.path, template=load_template("chatml"))
    write_tokenizer(formatter, out=tmp_path)
    with pytest.raises(VerificationError, match="needs 5 or newer"):
        verify.verify_tokenizer(tmp_path, formatter=formatter, python=Path(sys.executable))


def test_tokenizer_in_the_newest_transformers(base: BaseModel, tmp_path: Path) -> None:
    python = os.environ.get("NEMO_REASONING_TOKENIZER_PYTHON")
    if not python:
        pytest.skip("NEMO_REASONING_TOKENIZER_PYTHON names no interpreter with transformers 5")
    formatter = ChatFormatter.load(base.path, template=load_template("chatml"))
    write_tokenizer(formatter, out=tmp_path)
    assert verify.verify_tokenizer(tmp_path, formatter=formatter, python=Path(python))["texts"] == 7
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": "<|im_start|>"}))
    with pytest.raises(VerificationError, match="disagrees about eos"):
        verify.verify_tokenizer(tmp_path, formatter=formatter, python=Path(python))


def test_importing_the_package_loads_no_nemo() -> None:
    code = "import sys, nemo_reasoning.export.export; sys.exit('nemo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
