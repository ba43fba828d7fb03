"""Understanding rows: every schema in use, and every way to spoil one."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_reasoning.data.schemas.dialogue import Row
from nemo_reasoning.data.schemas.rows import parse_row
from nemo_reasoning.errors import RowError
from nemo_reasoning.reasoning.messages import Message
from nemo_reasoning.reasoning.tags import with_thinking

USER = {"role": "user", "content": "2 + 2?"}
THOUGHT = with_thinking("2 + 2 = 4", "It is 4.")
NEMOTRON: dict[str, Any] = {
    "input": [USER],
    "output": "<think>\n2 + 2 = 4\n</think>\n\nIt is 4.",
    "category": "math",
    "license": "cc-by-4.0",
    "reasoning": "on",
    "generator": "DeepSeek-R1",
    "used_in_training": ["Nano", "Super"],
    "version": "v1",
    "system_prompt": "detailed thinking on",
}
TEMPLATED = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\ndetailed thinking {mode}<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n2 + 2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
OLDER: dict[str, Any] = {
    "input": TEMPLATED.format(mode="on"),
    "output": "<think>2 + 2 = 4</think>It is 4.<|eot_id|>",
    "category": "math",
    "license": "cc-by-4.0",
    "reasoning": "on",
    "generator": "DeepSeek-R1",
    "used_in_training": "yes",
    "version": "v1",
}
ON = (
    Message("system", "detailed thinking on"),
    Message("user", "2 + 2?"),
    Message("assistant", THOUGHT),
)


def parse(value: Any) -> Row:
    return parse_row(value, origin="a.jsonl:1")


def messages(*turns: tuple[str, Any], **columns: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **columns}


@pytest.mark.parametrize(
    "value",
    [
        NEMOTRON,
        NEMOTRON | {"used_in_training": "Nano"},
        NEMOTRON | {"output": "<think>2 + 2 = 4</think>It is 4."},
        NEMOTRON | {"output": "\n<think>\n\n2 + 2 = 4\n\n</think>\n\n\nIt is 4.<|eot_id|>\n"},
        NEMOTRON | {"input": [{"role": "system", "content": "detailed thinking on"}, USER]},
        OLDER,
        OLDER | {"used_in_training": "no"},
        OLDER | {"used_in_training": ["yes"]},
        OLDER | {"system_prompt": "detailed thinking on"},
        OLDER | {"input": OLDER["input"].removeprefix("<|begin_of_text|>").strip()},
        OLDER | {"input": OLDER["input"].rpartition("<|start_header_id|>")[0]},
        OLDER | {"input": " 2 + 2? "},
        NEMOTRON | {"reasoning": True},
        NEMOTRON | {"output": "2 + 2 = 4</think>It is 4."},
        messages(("user", "2 + 2?"), ("assistant", THOUGHT), category="math", license="cc-by-4.0"),
        messages(
            *(("system", "detailed thinking on"), ("user", "2 + 2?"), ("assistant", THOUGHT)),
            **{"category": "math", "license": "cc-by-4.0", "reasoning": "on", "system_prompt": None},
        ),
    ],
)
def test_every_schema_gives_the_same_row(value: dict[str, Any]) -> None:
    assert parse(json.loads(json.dumps(value))) == Row(ON, "on", "math", "cc-by-4.0", "a.jsonl:1")


@pytest.mark.parametrize(
    "value",
    [
        NEMOTRON | {"output": "It is 4.", "reasoning": "off", "system_prompt": "detailed thinking off"},
        OLDER | {"input": TEMPLATED.format(mode="off"), "output": "It is 4.<|eot_id|>", "reasoning": "off"},
        messages(("user", "2 + 2?"), ("assistant", "It is 4.")),
    ],
)
def test_rows_without_thinking(value: dict[str, Any]) -> None:
    row = parse(value)
    assert row.mode == "off"
    assert [turn.content for turn in row.messages] == ["detailed thinking off", "2 + 2?", "It is 4."]


def test_a_templated_dialogue_keeps_its_turns() -> None:
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."), ("user", "Bye")]
    text = "".join(f"<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>" for role, content in turns)
    row = parse({"input": text, "output": "Bye."})
    assert [(turn.role, turn.content) for turn in row.messages] == [
        ("system", "detailed thinking off\n\nBe brief."),
        *turns[1:],
        ("assistant", "Bye."),
    ]


@pytest.mark.parametrize("turns", [[USER], [{"role": "system", "content": "Be brief."}, USER]])
@pytest.mark.parametrize("shape", ["messages", "input"])
def test_the_column_comes_above_the_system_turn(turns: list[dict[str, str]], shape: str) -> None:
    answer = {"messages": [*turns, {"role": "assistant", "content": THOUGHT}]}
    value = answer if shape == "messages" else {"input": turns, "output": THOUGHT}
    system = parse(value | {"system_prompt": "\ndetailed thinking on\n\nAnswer in English. "}).messages[0].content
    own = "\n\nBe brief." if len(turns) == 2 else ""
    assert system == f"detailed thinking on\n\nAnswer in English.{own}"


def test_unknown_category_and_licence_are_empty() -> None:
    for columns in ({}, {"category": None, "license": ["a"]}):
        row = parse(messages(("user", "Hi"), ("assistant", "Hello."), **columns))
        assert (row.category, row.license) == ("", "")


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in NEMOTRON.items() if key not in keys}


UNUSABLE = [
    ([], "not an object"),
    ("text", "not an object"),
    (None, "not an object"),
    ({}, "missing keys"),
    (without("output"), "missing keys"),
    (without("input"), "missing keys"),
    ({"messages": None}, "missing keys"),
    ({"messages": []}, "wrong type"),
    ({"messages": "Hi"}, "wrong type"),
    ({"messages": ["Hi"]}, "wrong type"),
    ({"messages": [{"role": "user"}]}, "no final assistant turn"),
    (messages(("user", "Hi"), ("assistant", None)), "empty answer"),
    (messages(("user", "Hi"), ("assistant", 5)), "wrong type"),
    (messages(("user", [{"type": "image_url", "image_url": "x"}]), ("assistant", "a")), "unsupported part"),
    (messages(("tool", "Hi"), ("assistant", "a")), "turns do not alternate"),
    (messages(("narrator", "Hi"), ("assistant", "a")), "unknown role"),
    (messages((["user"], "Hi"), ("assistant", "a")), "unknown role"),
    ({"messages": [{"content": "Hi"}]}, "unknown role"),
    (NEMOTRON | {"input": None}, "missing keys"),
    (NEMOTRON | {"input": []}, "wrong type"),
    (NEMOTRON | {"input": {"role": "user"}}, "wrong type"),
    (NEMOTRON | {"output": None}, "missing keys"),
    (NEMOTRON | {"output": [5]}, "wrong type"),
    (NEMOTRON | {"system_prompt": 5}, "wrong type"),
    (NEMOTRON | {"reasoning": "maybe"}, "unknown reasoning"),
    (NEMOTRON | {"reasoning": 5}, "unknown reasoning"),
    (NEMOTRON | {"reasoning": False}, "contradicts its switch"),
    (NEMOTRON | {"reasoning": "off"}, "contradicts its switch"),
    (NEMOTRON | {"system_prompt": "detailed thinking off"}, "contradicts its switch"),
    (NEMOTRON | {"output": "It is 4."}, "contradicts its switch"),
    (OLDER | {"input": TEMPLATED.format(mode="off")}, "contradicts its switch"),
    (messages(("user", "Hi"), ("assistant", THOUGHT), system_prompt="detailed thinking off"), "contradicts its switch"),
    (NEMOTRON | {"output": "<think>2 + 2 = 4"}, "malformed thinking"),
    (without("reasoning", "system_prompt") | {"output": "2 + 2 = 4 </think> 4"}, "malformed thinking"),
    (NEMOTRON | {"output": "<think>2</think>2<think>2</think>4"}, "malformed thinking"),
    (NEMOTRON | {"output": "<think>\n</think>4"}, "empty thinking"),
    (NEMOTRON | {"output": "<think>\n4</think>"}, "empty answer"),
    (messages(("user", "half \ud800"), ("assistant", "a")), "not Unicode"),
    (NEMOTRON | {"output": "half \udfff"}, "not Unicode"),
    (NEMOTRON | {"system_prompt": "half \udfff"}, "not Unicode"),
    (messages(("user", "Hi")), "no final assistant turn"),
    (messages(("assistant", "Hi")), "turns do not alternate"),
    (OLDER | {"input": "<|start_header_id|>assistant<|end_header_id|>\n\n"}, "turns do not alternate"),
    (OLDER | {"input": ""}, "empty user turn"),
    (OLDER | {"input": "<|start_header_id|>user\n\nHi<|eot_id|>"}, "malformed template"),
    (OLDER | {"input": "Hi <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"}, "malformed template"),
    (OLDER | {"input": "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|> Bye"}, "malformed template"),
    (OLDER | {"input": "<|start_header_id|>ipython<|end_header_id|>\n\nHi<|eot_id|>"}, "unknown role"),
]


@pytest.mark.parametrize(("value", "reason"), UNUSABLE)
def test_unusable_rows_are_refused_with_a_reason(value: Any, reason: str) -> None:
    with pytest.raises(RowError, match=f"^{re.escape(reason)}: "):
        parse(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["user", "on", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "messages", "input", "output", "reasoning"]), inner)
    ),
    max_leaves=8,
)


@given(value=JSON, column=st.sampled_from(["messages", "input", "output", "reasoning", "system_prompt", "category"]))
def test_nothing_but_a_row_error_comes_of_any_json(value: Any, column: str) -> None:
    for spoilt in (value, NEMOTRON | {column: value}, {"messages": [USER, value]}):
        try:
            written: object = [turn.to_dict() for turn in parse(spoilt).messages]
        except RowError as error:
            written = str(error)
        assert json.dumps(written, ensure_ascii=False).encode()
