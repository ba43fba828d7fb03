"""Tokens and targets of dialogues: what is learnt, what is asked, and what is refused."""

import re
from pathlib import Path

import pytest
from chats import END_OF_TURN, TEMPLATES, dialogue, formatter, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.errors import RowError, TemplateError
from nemo_reasoning.reasoning.messages import Message
from nemo_reasoning.reasoning.tags import with_thinking

ANSWER = with_thinking("6 * 7 = 42", "It is 42.")
REFUSING = "{{- raise_exception('no secrets') if 'secret' in messages[0]['content'] -}}" + load_template("chatml")
each_template = pytest.mark.parametrize("template", TEMPLATES)


def stretches(formatter: ChatFormatter, messages: list[Message]) -> list[str]:
    """Return the text of each run of targets."""
    encoded = formatter.encode(messages)
    marks = "".join("x" if target else " " for target in encoded.loss_mask)
    return [formatter.tokenizer.decode(encoded.ids[slice(*run.span())]) for run in re.finditer("x+", marks)]


@each_template
def test_the_answer_is_learnt_with_the_end_of_its_turn(template: str) -> None:
    [learnt] = stretches(formatter(template), dialogue("What is 6 times 7?", ANSWER, system="Be brief."))
    assert learnt.strip() == f"{ANSWER}{' ' if template == 'llama2' else ''}{END_OF_TURN[template]}"


@each_template
def test_every_assistant_turn_is_learnt_and_nothing_else(template: str) -> None:
    learnt = stretches(formatter(template), dialogue("one", "two", "three", "four", "five", "six"))
    spoken = [text.removesuffix(END_OF_TURN[template]).strip() for text in learnt]
    assert spoken == ["two", "four", "six"]
    assert all(text.endswith(END_OF_TURN[template]) for text in learnt)


@each_template
@pytest.mark.parametrize("context", [{1}, {3}, {5}, {1, 3}, {1, 5}, {3, 5}])
def test_turns_that_are_context_are_not_learnt(template: str, context: set[int]) -> None:
    turns = dialogue("one", "two", "three", "four", "five", "six")
    marked = [Message(turn.role, turn.content, target=place not in context) for place, turn in enumerate(turns)]
    learnt = [text.removesuffix(END_OF_TURN[template]).strip() for text in stretches(formatter(template), marked)]
    assert learnt == [turns[place].content for place in (1, 3, 5) if place not in context]
    assert formatter(template).encode(marked).ids.tolist() == formatter(template).encode(turns).ids.tolist()


@each_template
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_one_beginning_of_text(template: str, system: str) -> None:
    messages = dialogue("Hi", ANSWER, system=system)
    begin = tokenizer(template).bos_token_id
    for ids in (formatter(template).encode(messages).ids.tolist(), formatter(template).prompt_ids(messages[:-1])):
        assert ids[0] == begin
        assert ids[1] != begin
        assert ids.count(begin) == 1 or template == "chatml"


@each_template
@settings(max_examples=20, deadline=None)
@given(turns=st.lists(st.text(max_size=8), min_size=1, max_size=3), system=st.text(max_size=8))
def test_a_prompt_is_what_training_has_before_the_answer(template: str, turns: list[str], system: str) -> None:
    _assert_prompt_is_prefix(formatter(template), dialogue(*turns, *turns[::-1], system=system))


# SmolLM2 has no tokens for some control characters, nor for the planes beyond emoji.
KNOWN = st.characters(codec="utf-8", min_codepoint=0x20, max_codepoint=0x1FAFF) | st.sampled_from("\n\r\t ")


@settings(max_examples=40, deadline=None)
@given(question=st.text(KNOWN, max_size=12), answer=st.text(KNOWN, max_size=12))
def test_merged_tokens_do_not_cross_into_the_answer(smollm2: ChatFormatter, question: str, answer: str) -> None:
    _assert_prompt_is_prefix(smollm2, dialogue(question, answer))


def _assert_prompt_is_prefix(formatter: ChatFormatter, messages: list[Message]) -> None:
    encoded, prompt = formatter.encode(messages), formatter.prompt_ids(messages[:-1])
    assert encoded.ids[: len(prompt)].tolist() == prompt
    learnt = encoded.ids[len(prompt) :][encoded.loss_mask[len(prompt) :]]
    assert encoded.loss_mask[len(prompt)]
    end = formatter.tokenizer.eos_token
    assert formatter.tokenizer.decode(learnt).removesuffix(end).strip() == messages[-1].content.strip()


@each_template
def test_a_loaded_formatter_knows_the_end_of_a_turn(tmp_path: Path, template: str) -> None:
    tokenizer(template).save_pretrained(tmp_path)
    loaded = ChatFormatter.load(tmp_path, template=load_template(template))
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.end_of_turn) == END_OF_TURN[template]
    messages = dialogue("Hi", ANSWER, system="é")
    assert loaded.encode(messages).ids.tolist() == formatter(template).encode(messages).ids.tolist()


@pytest.fixture(scope="module")
def smollm2(smollm2_hf: Path) -> ChatFormatter:
    return ChatFormatter.load(smollm2_hf, template=load_template("chatml"))


@each_template
@pytest.mark.parametrize("place", [0, 1, 2])
def test_special_tokens_in_the_text_are_refused(template: str, place: int) -> None:
    special = [token.content for token in tokenizer(template).added_tokens_decoder.values()]
    assert len(special) >= 3
    for token in special:
        turns = dialogue("Hi", ANSWER, system="Be brief.")
        turns[place] = Message(turns[place].role, f"a{token}b")
        with pytest.raises(
            RowError, match=f"^special token in the text: {re.escape(token)} in the {turns[place].role}"
        ):
            formatter(template).encode(turns)


@pytest.mark.parametrize(
    "messages",
    [[], dialogue("Hi"), [Message("user", "Hi"), Message("assistant", "Hello.", target=False)]],
    ids=["nothing", "a question", "context only"],
)
def test_nothing_to_learn_is_refused(messages: list[Message]) -> None:
    with pytest.raises(RowError, match="^no supervised token: "):
        formatter("chatml").encode(messages)


def test_a_batch_is_encoded_as_its_rows_are() -> None:
    picky = ChatFormatter(tokenizer("chatml"), REFUSING)
    rows = [dialogue("Hi", "Hello."), dialogue("Hi"), dialogue("a secret", "No."), dialogue("<|im_end|>", "?")]
    rows += [dialogue("é" * length, "🙂" * (9 - length)) for length in range(1, 9)]
    results = picky.encode_all(rows)
    reasons = [str(result).partition(": ")[0] for result in results if isinstance(result, RowError)]
    assert reasons == ["no supervised token", "refused by the chat template", "special token in the text"]
    for messages, result in zip(rows, results, strict=True):
        if isinstance(result, RowError):
            continue
        alone = picky.encode(messages)
        assert (result.ids.tolist(), result.loss_mask.tolist()) == (alone.ids.tolist(), alone.loss_mask.tolist())
    assert picky.encode_all([]) == []


def test_a_template_that_marks_too_few_turns_is_refused() -> None:
    last_only = load_template("chatml").replace("== 'assistant' -%}", "== 'assistant' and loop.last -%}")
    formatter = ChatFormatter(tokenizer("chatml"), last_only)
    assert len(formatter.encode(dialogue("Hi", "Hello.")).ids)
    with pytest.raises(RowError, match="^assistant turns not marked: 1 stretches of tokens for 2 turns"):
        formatter.encode(dialogue("Hi", "Hello.", "And?", "Bye."))


@pytest.mark.parametrize("clock", ["{{ strftime_now('%d %b %Y') }}", "{{ date_string }}"])
def test_a_template_with_a_date_is_refused(tmp_path: Path, clock: str) -> None:
    path = tmp_path / "dated.jinja"
    path.write_text(clock + load_template("llama3"), encoding="utf-8")
    with pytest.raises(TemplateError, match=r"dated\.jinja uses (strftime_now|date_string)"):
        load_template(str(path))
    with pytest.raises(TemplateError, match=r"the chat template uses (strftime_now|date_string)"):
        ChatFormatter(tokenizer("llama3"), path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("begin", ["{% generation %}", "{%- generation -%}", "{%+ generation +%}", "{%generation%}"])
def test_a_template_must_mark_what_the_assistant_says(tmp_path: Path, begin: str) -> None:
    path = tmp_path / "own.jinja"
    marked = load_template("llama3").replace("{%- generation -%}", begin)
    path.write_text(marked + "\n", encoding="utf-8")
    assert load_template(str(path)) == marked
    unmarked = re.sub(r"\{%\W*(end)?generation\W*%\}", "", marked)
    path.write_text(unmarked, encoding="utf-8")
    with pytest.raises(TemplateError, match=r"own\.jinja has no {% generation %} block"):
        load_template(str(path))
    with pytest.raises(TemplateError, match="the chat template has no {% generation %} block"):
        ChatFormatter(tokenizer("llama3"), unmarked)


def test_an_unknown_template_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"neither a file nor one of chatml, llama2, llama3, mistral, qwen3$"):
        load_template(str(tmp_path / "missing.jinja"))
