"""Any JSON value under any key of a row is read, filtered out or refused by name: one row ends no preparation."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_rows import data_settings
from tiny import chatml_tokenizer

from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.data.prepare.filters import FilteredOut, Filters
from nemo_reasoning.data.schemas.columns import IGNORED_KEYS, QUESTION_PARTS, REFUSED, TRACES
from nemo_reasoning.data.schemas.layouts import COMMON, LAYOUTS, declared
from nemo_reasoning.data.schemas.rows import decode_row
from nemo_reasoning.data.schemas.turns import CALL_KEYS, CONTENT_KEYS, ROLE_KEYS, WEIGHT_KEYS
from nemo_reasoning.errors import RowError
from nemo_reasoning.reasoning.messages import Message

PART = {"type": "text", "text": "It is 4."}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]},
    {"role": "assistant", "content": "", "tool_calls": [CALL], "weight": 0},
    {"role": "tool", "content": "4", "name": "add", "tool_call_id": "1"},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "2 + 2 = 4"}, PART], "reasoning": ""},
]
STRUCT = {"role": ["user", "assistant"], "content": ["2 + 2?", "4"]}
ROWS: list[dict[str, Any]] = [
    {"messages": TURNS, "tools": [{"type": "function", "function": {"name": "add", "parameters": {}}}]},
    {"messages": json.dumps(TURNS), "chat_template_kwargs": {"enable_thinking": True}},
    {"messages": STRUCT},
    {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
    {"conversations": [{"input": "2 + 2?", "output": "4"}]},
    {"instruction": "2 + 2?", "input": "", "output": "4", "history": [["1 + 1?", "2"]]},
    {"input": [{"role": "user", "content": "2 + 2?"}], "output": "4", "reasoning": "off"},
    {"question": "2 + 2?", "attempt": "4", "thinking_trajectories": ["2 + 2 = 4"]},
    {"prompt": TURNS[1:2], "completion": [TURNS[-1]]},
    {"problem": "2 + 2?", "generations": ["5", "4"], "correctness_math_verify": [False, True]},
    {"question": "2 + 2?", "solution": "4", "finish_reasons": ["stop"], "metadata": {"train_turns": []}},
]
KEYS = sorted(
    {key for layout in LAYOUTS for key in layout.reads}
    | {*COMMON, *TRACES, *REFUSED, *QUESTION_PARTS, *ROLE_KEYS, *CONTENT_KEYS, *WEIGHT_KEYS, *CALL_KEYS, *IGNORED_KEYS}
    | {"metadata", "train_turns", "used_in_training", "generator", "type", "function", "arguments", "parameters"}
    | {"input_text", "output_text", "channel", "thinkingSteps", "lossMask", "Content", "a.b", ""}
)
TEXTS = ["", " ", "on", "/think", "<think>a", "</think>", "a</think>b", "<think>\na\n</think>\n\nb", "[", "{}", "[[]]"]
TEXTS += ["null", '[{"role": 1}]', '["a", 1]', "['a']", "\ud800", "assistant", "text", "thinking", "True", "-"]
TEXTS += [json.dumps(TURNS), json.dumps(CALL), json.dumps(STRUCT), "<|start_header_id|>user<|end_header_id|>a"]
KEY = st.sampled_from(KEYS) | st.text(max_size=3)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([*TEXTS, *KEYS]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEY, inner, max_size=3)
        | st.sampled_from([*TURNS, PART, CALL, STRUCT])
    ),
    max_leaves=8,
)
MAPPED = data_settings("data.columns.turns=messages", "data.columns.trace=reasoning", "data.columns.ignore=[license]")
CHOOSY = data_settings("data.filters.used_in_training=Nano", "data.filters.licenses=[mit]")
READERS = [
    Filters(chosen.filters, seq_length=64, mapping=declared(chosen.columns))
    for chosen in (data_settings(), MAPPED, CHOOSY)
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (object, key) and (list, index) within a JSON value."""
    entries = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, entry in entries:
        yield value, key
        if isinstance(entry, dict | list):
            yield from places(entry)


def objects(value: Any) -> list[Any]:
    """Return the objects within a JSON value, and itself."""
    inner = [holder[key] for holder, key in places(value)]
    return [value, *(entry for entry in inner if isinstance(entry, dict))]


def understood(line: str) -> bool:
    """Read a line, and return whether it became what preparation counts."""
    for reader in READERS:
        try:
            reader.read(decode_row(line.encode()), origin="file:0")
        except (FilteredOut, RowError):
            continue
    return True


TOOL_TEMPLATE = (
    "{% for tool in tools or [] %}{{ 'tool ' + tool.function.name }}{{ tool | tojson }}{% endfor %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}"
    "{% for call in message.tool_calls or [] %}{{ call | tojson }}{% endfor %}{{ '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize("depth", [1, 990])
@pytest.mark.parametrize("where", ["call", "tool", "name"])
def test_a_template_may_fail_at_a_tool(where: str, depth: int) -> None:
    formatter = ChatFormatter(chatml_tokenizer(), TOOL_TEMPLATE)
    assert formatter.renders_tools
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": deep if where == "call" else 1}}}
    tool = {"type": "function", "function": {"name": 5 if where == "name" else "add", "parameters": {"a": deep}}}
    messages = [Message("system", "", tools=(tool,) if where != "call" else ()), Message("user", "a")]
    messages.append(Message("assistant", "b", tool_calls=(call,)))
    [result] = formatter.encode_all([messages])
    assert isinstance(result, RowError) == (where == "name" or depth > 1)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(ROWS), st.data())
def test_any_value_under_any_key_is_understood(row: dict[str, Any], data: st.DataObject) -> None:
    row = copy.deepcopy(row)
    for _ in range(data.draw(st.integers(1, 2))):
        value = data.draw(VALUE)
        if data.draw(st.booleans()):
            data.draw(st.sampled_from(objects(row)))[data.draw(st.sampled_from(KEYS))] = copy.deepcopy(value)
        else:
            holder, key = data.draw(st.sampled_from(list(places(row))))
            holder[key] = copy.deepcopy(value)
    assert understood(json.dumps(row))


DEEP = [("[", "]"), ('{"content":', "}"), ('[{"type": "thinking", "thinking":', "}]")]


@pytest.mark.parametrize("depth", [0, 150, 500, 900])
@pytest.mark.parametrize(("opening", "closing"), DEEP)
def test_odd_and_deep_values_are_understood(depth: int, opening: str, closing: str) -> None:
    deep = opening * depth + "1" + closing * depth
    for row in map(copy.deepcopy, ROWS):
        for holder, key in list(places(row)):
            before, holder[key] = holder[key], "HERE"
            assert understood(json.dumps(row).replace('"HERE"', deep))
            holder[key] = before
