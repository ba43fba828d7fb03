"""Dialogues rendered in pieces, from a frame made once, read as the template renders them."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemo_reasoning.data.chat import TEMPLATES, ChatFormatter, fixed_templates, load_template
from nemo_reasoning.data.prepare.tokenise import Renderer
from nemo_reasoning.reasoning.messages import Message

SAID = st.text(st.sampled_from(list(" \n\t\u2003ab{}%'<>|\\0")), max_size=12)


@st.composite
def dialogues(draw: st.DrawFn) -> list[Message]:
    """Draw turns as prepared rows have them, with or without a system turn."""
    turns = [Message("system", draw(SAID))] * draw(st.booleans())
    for _ in range(draw(st.integers(1, 3))):
        turns += [Message("user", draw(SAID)), Message("assistant", draw(SAID), target=draw(st.booleans()))]
    return turns


@cache
def renderers(name: str, tokenizer: Path) -> tuple[ChatFormatter, Renderer, Renderer]:
    """Return the reference, a renderer that keeps the frame it made, and one that asks the template every time."""
    formatter = ChatFormatter.load(tokenizer, template=load_template(name))
    framed, asked = Renderer(formatter), Renderer(formatter)
    asked._fixed = False
    assert framed._fixed
    return formatter, framed, asked


FIXED = sorted(path.stem for path in TEMPLATES.glob("*.jinja") if load_template(path.stem) in fixed_templates())


@pytest.mark.parametrize("name", FIXED)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(messages=dialogues())
def test_pieces_are_those_of_the_template(name: str, smollm2_hf: Path, messages: list[Message]) -> None:
    formatter, framed, asked = renderers(name, smollm2_hf)
    assert framed.cut(messages) == asked.cut(messages)
    assert "".join(framed.cut(messages).texts) == formatter.render(messages, add_generation_prompt=False)


def test_a_template_that_looks_into_what_is_said_is_asked_every_time(smollm2_hf: Path) -> None:
    shouting = load_template("chatml").replace("message['content'] | trim", "message['content'] | upper")
    renderer = Renderer(ChatFormatter.load(smollm2_hf, template=shouting))
    cut = renderer.cut([Message("user", "a"), Message("assistant", "b")])
    assert cut is not None
    assert cut.texts[1] == "B<|im_end|>"
    assert cut.marks == [False, True, False]


def test_a_refusal_is_left_to_the_reference(smollm2_hf: Path) -> None:
    refusing = load_template("chatml") + "{{ raise_exception('no') }}"
    renderer = Renderer(ChatFormatter.load(smollm2_hf, template=refusing))
    assert renderer.cut([Message("user", "a"), Message("assistant", "b")]) is None
