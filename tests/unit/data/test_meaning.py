"""Nothing that changes what a row teaches is dropped in silence, however a data set spells it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_reasoning.config.data import ColumnSettings
from nemo_reasoning.data.schemas.columns import QUESTION_PARTS, TRACES
from nemo_reasoning.data.schemas.layouts import declared
from nemo_reasoning.data.schemas.rows import decode_row, parse_row
from nemo_reasoning.data.schemas.turns import ROLES, WEIGHT_KEYS
from nemo_reasoning.errors import ConfigError, RowError

TRACE, ANSWER, ASKED = "Four plus four is eight.", "It is 8.", "What is 4 + 4?"
THOUGHT = f"<think>\n{TRACE}\n</think>\n\n{ANSWER}"
USER = {"role": "user", "content": ASKED}


def parse(value: Any, **columns: Any) -> Any:
    parts = ("question", "answer", "trace", "system", "turns", "role", "content", "weight")
    mapping = declared(ColumnSettings(**{**dict.fromkeys(parts), "ignore": [], **columns}))
    return parse_row(decode_row(json.dumps(value).encode()), origin="a:1", mapping=mapping)


def chat(**assistant: Any) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "content": ANSWER, **assistant}]}


def said(value: Any, **columns: Any) -> str:
    content: str = parse(value, **columns).messages[-1].content
    return content


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.title, rest))


SPELLINGS = st.sampled_from([str, str.upper, str.title, camel, lambda name: name.replace("_", "-")])


@given(
    name=st.sampled_from(TRACES), spelling=SPELLINGS, tags=st.sampled_from(["{}", "<think>{}</think>", "{}\n</think>"])
)
def test_a_trace_is_read_in_any_spelling_of_its_name_in_turn_and_row(name: str, spelling: Any, tags: str) -> None:
    key, trace = spelling(name), tags.format(TRACE)
    assert said(chat(**{key: trace})) == THOUGHT
    assert said({"prompt": ASKED, "response": ANSWER, key: trace}) == THOUGHT


@given(
    word=st.sampled_from(["thinking", "thought", "reasoning", "cot", "rationale", "scratchpad"]),
    before=st.sampled_from(["gpt_", "my-", "Model_", ""]),
    after=st.sampled_from(["_steps", "-text2", "Blob"]),
)
def test_a_column_that_may_hold_the_trace_is_read_refused_or_left_out_by_name(
    word: str, before: str, after: str
) -> None:
    name = f"{before}{word}{after}"
    for row, column in (
        ({"prompt": ASKED, "response": ANSWER, name: TRACE}, name),
        (chat(**{name: TRACE}), f"messages.{name}"),
    ):
        with pytest.raises(RowError, match=rf"^column {column}: .*data\.columns\.trace={name}.*ignore=\[{column}\]"):
            parse(row)
        assert said(row, trace=name) == THOUGHT
        assert said(row, ignore=[column]) == ANSWER
        assert parse(json.loads(json.dumps(row).replace(ANSWER, "<think>b</think>c"))).unknown == {column}
        assert parse(json.loads(json.dumps(row).replace(TRACE, "high"))).unknown == {column}  # one word is no trace
        assert said({**row, "reasoning": "off"}) == ANSWER  # the author says that it does not think


@given(key=st.sampled_from(WEIGHT_KEYS), spelling=SPELLINGS, value=st.sampled_from([0, 0.0, False]))
def test_a_weight_is_read_in_any_spelling_of_its_name(key: str, spelling: Any, value: Any) -> None:
    assert not parse(chat(**{spelling(key): value})).messages[-1].target


@given(
    key=st.sampled_from(["is_target", "trainOn", "loss_multiplier", "supervised", "mask_turn"]),
    value=st.sampled_from([0, 0.5, "no"]),
)
def test_a_key_that_may_be_a_weight_is_refused_until_it_is_named(key: str, value: Any) -> None:
    with pytest.raises(RowError, match=rf"^unknown weight: messages\.{key}=.*data\.columns\.weight={key}"):
        parse(chat(**{key: value}))
    assert not parse(chat(**{key: 0}), weight=key).messages[-1].target


@given(
    column=st.sampled_from(["reasoning", "thinking", "enable_thinking"]),
    value=st.sampled_from([False, 0, "off", "False", " NO ", "disabled"]),
)
def test_whatever_states_a_mode_contradicts_a_trace(column: str, value: Any) -> None:
    assert said({**chat(), column: value}) == ANSWER
    for row in ({**chat(content=THOUGHT), column: value}, {"prompt": ASKED, "response": THOUGHT, column: value}):
        with pytest.raises(RowError, match="^contradicts its switch"):
            parse(row)


def test_keyword_arguments_of_a_template_may_be_text_and_others_are_counted() -> None:
    row = {**chat(), "chat_template_kwargs": '{"enable_thinking": false, "thinking_budget": 5}'}
    assert parse(row).unknown == {"chat_template_kwargs.thinking_budget"}
    with pytest.raises(RowError, match="^contradicts its switch"):
        parse({**row, "messages": chat(content=THOUGHT)["messages"]})


@pytest.mark.parametrize("name", sorted(QUESTION_PARTS))
def test_what_may_belong_to_a_question_is_read_or_refused(name: str) -> None:
    row = {"question": ASKED, "answer": ANSWER, name: "Some text."}
    if name == "context":
        assert parse(row).question == f"{ASKED}\n\nSome text."
        return
    with pytest.raises(RowError, match=rf"^column {name}: .*data\.columns\.ignore=\[{name}\]"):
        parse(row)
    assert said(row, ignore=[name]) == ANSWER


@given(
    nothing=st.sampled_from([None, "", [], {}, float("nan")]),
    name=st.sampled_from(["messages", "conversations", "problem"]),
)
def test_an_empty_column_of_another_layout_changes_nothing(nothing: Any, name: str) -> None:
    assert said({name: nothing, "prompt": ASKED, "response": THOUGHT}) == THOUGHT


@given(role=st.sampled_from(sorted(ROLES)), spelling=st.sampled_from([str.upper, str.title, lambda name: f" {name} "]))
def test_a_role_is_read_in_any_case(role: str, spelling: Any) -> None:
    turns = [{"from": spelling(role), "value": "a"}, USER, {"role": "assistant", "content": ANSWER}]
    if ROLES[role] == "system":
        assert parse({"messages": turns}).messages[0].content == "detailed thinking off\n\na"
    else:
        with pytest.raises(RowError, match="^(turns do not alternate|wrong type: tool_calls)"):
            parse({"messages": turns})


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"images": ["a.png"]}, "column messages.images"),
        ({"channel": "analysis"}, "column messages.channel"),
        ({"tools": [{"name": "f"}]}, "column messages.tools"),
        ({"value": "another"}, "two contents"),
        ({"content": [{"type": "text", "text": ANSWER, "thinking": TRACE}]}, "unsupported part"),
        ({"content": [5]}, "wrong type: a part"),
        ({"reasoning_content": "off"}, "wrong type: reasoning_content"),
        ({"reasoning_content": f"{TRACE}</think>{ANSWER}s"}, "malformed thinking"),
        ({"reasoning_content": "a\n</think>\nb\n<think>c"}, "malformed thinking"),
    ],
)
def test_keys_of_turns_that_change_a_meaning_are_refused(turn: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=f"^{reason}"):
        parse(chat(**turn))


@pytest.mark.parametrize("weight", [0, 0.5, False, [0, 1], "x"])
def test_weights_of_rows_are_refused(weight: Any) -> None:
    for name in ("weight", "train", "loss_mask"):
        with pytest.raises(RowError, match=f"^column {name}: "):
            parse({**chat(), name: weight})
        assert said({**chat(), name: 1}) == ANSWER


@pytest.mark.parametrize("place", ["-", "N/A", "null", " - "])
def test_placeholders_are_no_questions_in_any_layout(place: str) -> None:
    for row in (
        {"prompt": place, "response": ANSWER},
        {"messages": [{**USER, "content": place}, *chat()["messages"][1:]]},
    ):
        with pytest.raises(RowError, match="^placeholder question"):
            parse(row)


def test_turns_as_json_text_are_turns_and_prose_that_looks_like_them_is_prose() -> None:
    assert said({"prompt": json.dumps([USER]), "response": THOUGHT}) == THOUGHT
    assert parse({"prompt": json.dumps([USER]), "response": THOUGHT}).question == ASKED
    for prose in ('[{"a": 1}]', "[{this is no JSON", '[{"role": 1'):
        assert parse({"prompt": prose, "response": ANSWER}).question == prose


def test_a_part_of_a_mapping_changes_single_names() -> None:
    row = {"prompt": ASKED, "response": ANSWER, "gedanken": TRACE, "rolle": "Be kind."}
    assert said(row, trace="gedanken") == THOUGHT
    assert parse(row, trace="gedanken", system="rolle").messages[0].content == "detailed thinking on\n\nBe kind."
    with pytest.raises(RowError, match="^missing keys"):
        parse(row, trace="response")


@pytest.mark.parametrize(
    "columns",
    [
        {"question": "a"},
        {"answer": "a", "trace": "b"},
        {"turns": "a", "question": "b", "answer": "c"},
        {"question": "a", "answer": "a"},
        {"question": "", "answer": "a"},
    ],
)
def test_half_a_mapping_is_refused(columns: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"data\.columns"):
        parse(chat(), **columns)
