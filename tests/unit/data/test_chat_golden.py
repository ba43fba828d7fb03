"""What the templates make of chats, compared with tests/data/chat_golden.json: text, ids and targets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chats import formatter

from nemo_reasoning.data.chat import TEMPLATES, ChatFormatter, load_template
from nemo_reasoning.reasoning.messages import Message

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "chat_golden.json").read_text(encoding="utf-8"))
CONTEXT = "context"  # an assistant turn that is no target
BYTES = [golden for golden in GOLDEN["goldens"] if golden["tokenizer"] != "smollm2"]
SMOLLM2 = [golden for golden in GOLDEN["goldens"] if golden["tokenizer"] == "smollm2"]


def _messages(name: str) -> list[Message]:
    return [
        Message("assistant" if role == CONTEXT else role, content, target=role != CONTEXT)
        for role, content in GOLDEN["dialogues"][name]
    ]


def _compare(formatter: ChatFormatter, golden: dict[str, Any]) -> None:
    messages = _messages(golden["dialogue"])
    assert formatter.render(messages, add_generation_prompt=False) == golden["text"]
    encoded = formatter.encode(messages)
    assert encoded.ids.dtype == np.int32
    assert encoded.ids.tolist() == golden["ids"]
    assert encoded.loss_mask.dtype == np.bool_
    assert np.flatnonzero(encoded.loss_mask).tolist() == [
        place for start, end in golden["targets"] for place in range(start, end)
    ]


def _name(golden: dict[str, Any]) -> str:
    return f"{golden['template']}, {golden['dialogue']}"


@pytest.mark.parametrize("golden", BYTES, ids=_name)
def test_bytes(golden: dict[str, Any]) -> None:
    _compare(formatter(golden["template"]), golden)


@pytest.mark.parametrize("golden", SMOLLM2, ids=_name)
def test_smollm2(golden: dict[str, Any], smollm2_hf: Path) -> None:
    _compare(ChatFormatter.load(smollm2_hf, template=load_template("chatml")), golden)


def test_every_template_of_the_package_has_goldens() -> None:
    assert {path.stem for path in TEMPLATES.glob("*.jinja")} == {golden["template"] for golden in BYTES}
    assert {golden["dialogue"] for golden in BYTES} == set(GOLDEN["dialogues"])
