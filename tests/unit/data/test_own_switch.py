"""A chat template with a switch of its own, Qwen3's: rows and prompts are in its format, and say nothing twice."""

from collections.abc import Sequence

import pytest
from tiny import chatml_tokenizer

from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.data.prepare.tokenise import Renderer, same
from nemo_reasoning.data.store import Encoded
from nemo_reasoning.errors import EngineError, RowError
from nemo_reasoning.export.serve_commands import _switch
from nemo_reasoning.export.tokenizer import strip_generation
from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.inference.tokenizer import ChatTokenizer
from nemo_reasoning.reasoning.messages import Message, Mode
from nemo_reasoning.reasoning.switch import THINK_SYSTEM, system_prompt, template_arguments
from nemo_reasoning.reasoning.tags import with_thinking

TRACE, ANSWER, EMPTY = "6 * 7 = 42", "It is 42.", "<think>\n\n</think>\n\n"
USER = "<|im_start|>user\nWhat is 6 * 7?<|im_end|>\n"
ASSISTANT = "<|im_start|>assistant\n"


def dialogue(mode: Mode, *earlier: Message, instructions: str = "") -> tuple[Message, ...]:
    said = with_thinking(TRACE, ANSWER) if mode == "on" else ANSWER
    asked = Message("user", "What is 6 * 7?")
    return (Message("system", system_prompt(mode, instructions)), *earlier, asked, Message("assistant", said))


@pytest.fixture(scope="module")
def formatter() -> ChatFormatter:
    found = ChatFormatter(chatml_tokenizer(), load_template("qwen3"))
    found.check()
    return found


def pieces(formatter: ChatFormatter, messages: Sequence[Message]) -> tuple[str, str]:
    """Return the text of a dialogue, and of what is trained on."""
    found = formatter.encode(messages)
    ids, mask = found.ids.tolist(), found.loss_mask.tolist()
    trained = [token for token, target in zip(ids, mask, strict=True) if target]
    return str(formatter.tokenizer.decode(ids)), str(formatter.tokenizer.decode(trained))


@pytest.mark.parametrize(
    ("mode", "before", "trained"),
    [("on", "", f"<think>\n{TRACE}\n</think>\n\n{ANSWER}<|im_end|>"), ("off", EMPTY, f"{ANSWER}<|im_end|>")],
)
def test_a_row_is_what_qwen3_writes(formatter: ChatFormatter, mode: Mode, before: str, trained: str) -> None:
    messages = dialogue(mode)
    assert pieces(formatter, messages) == (f"{USER}{ASSISTANT}{before}{trained}\n", trained)
    prompt = formatter.prompt_ids(messages[:-1])
    assert formatter.tokenizer.decode(prompt) == f"{USER}{ASSISTANT}{before}"
    text, _ = pieces(formatter, dialogue(mode, instructions="Be brief."))
    assert text.startswith(f"<|im_start|>system\nBe brief.<|im_end|>\n{USER}")


def test_only_turns_behind_their_own_switch_are_trained_on(formatter: ChatFormatter) -> None:
    earlier = (Message("user", "Hi."), Message("assistant", with_thinking("A greeting.", "Hello!")))
    text, trained = pieces(formatter, dialogue("on", *earlier))
    assert f"{ASSISTANT}Hello!<|im_end|>" in text
    assert "greeting" not in text
    assert trained.startswith(f"<think>\n{TRACE}")
    plain = (Message("user", "Hi."), Message("assistant", "Hello!"))
    text, trained = pieces(formatter, dialogue("off", *plain))
    assert text.count(EMPTY) == 1
    assert trained == f"{ANSWER}<|im_end|>"


def test_what_no_turn_is_left_to_learn_of_is_said(formatter: ChatFormatter) -> None:
    last = Message("assistant", ANSWER, target=False)
    messages = (Message("user", "Hi."), Message("assistant", "Hello!"), Message("user", "And?"), last)
    with pytest.raises(RowError, match="of the turns to learn the chat template keeps none in its mode"):
        formatter.encode((Message("system", THINK_SYSTEM["off"]), *messages))


def test_rows_of_both_modes_are_encoded_together_as_alone(formatter: ChatFormatter) -> None:
    rows = [dialogue("on"), dialogue("off"), dialogue("on", instructions="Be brief."), dialogue("off")]
    for messages, found in zip(rows, formatter.encode_all(rows), strict=True):
        assert same(found, formatter.encode(messages))
        cut = Renderer(formatter).cut(messages)
        assert cut is not None
        assert isinstance(found, Encoded)
        assert "".join(cut.texts) == formatter.tokenizer.decode(found.ids.tolist())
        assert (
            "".join(text for text, mark in zip(cut.texts, cut.marks, strict=True) if mark)
            == pieces(formatter, messages)[1]
        )


@pytest.mark.parametrize(("mode", "end"), [("on", ASSISTANT), ("off", ASSISTANT + EMPTY)])
def test_an_engine_asks_as_training_did(formatter: ChatFormatter, mode: Mode, end: str) -> None:
    hf = chatml_tokenizer()
    hf.chat_template = strip_generation(formatter.template)
    tokenizer = ChatTokenizer(hf, stop_ids=frozenset({2}), context=256)
    for asked in ("What is 6 * 7?", f"What is 6 * 7? {'/think' if mode == 'on' else '/no_think'}"):
        request = GenerationRequest(messages=(Message("user", asked),), mode=mode, max_new_tokens=8)
        assert hf.decode(tokenizer.prompt(request).ids) == USER + end
    against = Message("user", f"What? {'/no_think' if mode == 'on' else '/think'}")
    with pytest.raises(EngineError, match="remove one of the two"):
        tokenizer.prompt(GenerationRequest(messages=(against,), mode=mode, max_new_tokens=8))


def test_null_is_not_off(formatter: ChatFormatter) -> None:
    """As in the published template, only false is."""
    options = {"chat_template": strip_generation(formatter.template), "tokenize": False, "add_generation_prompt": True}
    asked = [{"role": "user", "content": "What is 6 * 7?"}]
    ends = {
        value: formatter.tokenizer.apply_chat_template(asked, enable_thinking=value, **options)
        for value in (None, True, False)
    }
    assert ends[None] == ends[True] == USER + ASSISTANT
    assert ends[False] == USER + ASSISTANT + EMPTY


def test_the_switch_is_found_in_a_template_alone_that_takes_it(formatter: ChatFormatter) -> None:
    assert template_arguments(formatter.template) == ("enable_thinking",)
    assert _switch(formatter.template)["off"] == '{"enable_thinking": false}'
    assert template_arguments("{% if not thinking is defined %}{% set thinking = false %}{% endif %}") == ("thinking",)
    for text in (load_template("llama3"), "{{ messages[0].thinking }} enable_thinking", "{% broken"):
        assert template_arguments(text) == ()
