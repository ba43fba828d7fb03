"""Several answers to a question, and what stands beside them; tools in every published shape."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import chatml_tokenizer

from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.data.schemas.rows import parse_row
from nemo_reasoning.data.schemas.tools import read_calls, read_tools
from nemo_reasoning.data.schemas.verdicts import CORRECT, choose_answer
from nemo_reasoning.errors import RowError

WRONG = st.sampled_from([False, 0, 0.0, "false", "No", "incorrect"])
RIGHT = st.sampled_from([True, 1, 1.0, "TRUE", "yes", "correct"])


@given(column=st.sampled_from(CORRECT), wrong=WRONG, right=RIGHT, place=st.integers(0, 3), as_text=st.booleans())
def test_the_first_right_answer_is_taken_whatever_the_type_of_a_verdict(
    column: str, wrong: Any, right: Any, place: int, as_text: bool
) -> None:
    verdicts: Any = [wrong] * 4
    verdicts[place] = right
    row = {column: json.dumps(verdicts) if as_text else verdicts}
    assert choose_answer(["a", "b", "c", "d"], row) == ("abcd"[place], 3)
    with pytest.raises(RowError, match=f"^no right answer: {column}"):
        choose_answer(["a", "b", "c", "d"], {column: [wrong] * 4})
    for layout in ({"prompt": "q"}, {"instruction": "q"}):
        with pytest.raises(RowError, match=f"^no right answer: {column}"):
            parse_row({**layout, "response": "a", column: wrong}, origin="a:1")
        with pytest.raises(RowError, match=f"^no right answer: {column}"):
            parse_row({**layout, "response": "a", column: [wrong]}, origin="a:1")


@pytest.mark.parametrize(
    ("answers", "row", "chosen"),
    [
        (["a", "b"], {"correctness_math_verify": [False, False], "correctness_llama": [False, True]}, "b"),
        (["a", "b"], {"correctness": [None, True]}, "b"),
        (["a", "b"], {"correctness": [None, None]}, "a"),
        ([None, "", "\u200b", "b"], {}, "b"),
        (["a", "b"], {"finish_reasons": ["length", "stop"]}, "b"),
        (["a", "b"], {"is_reasoning_complete": [False, True], "correctness": [True, True]}, "b"),
    ],
)
def test_judges_are_asked_where_checkers_fail(answers: list[str], row: dict[str, Any], chosen: str) -> None:
    assert choose_answer(answers, row)[0] == chosen


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"correctness": [True]}, "unknown verdict: correctness has 1 for 2"),
        ({"correctness": ["perhaps", True]}, "unknown verdict"),
        ({"correctness": "[true, "}, "wrong type: correctness is text"),
        ({"correctness": "[" * 10**5}, "wrong type: correctness is text"),
        ({"is_correct": False}, "no right answer"),
        ({"finish_reasons": ["length", "length"]}, "no right answer"),
    ],
)
def test_verdicts_that_fit_no_answer_are_refused(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=f"^{reason}"):
        choose_answer(["a", "b"], row)


WANTED = ({"type": "function", "function": {"name": "add", "arguments": {"a": 1}}},)
ARGUMENTS = st.sampled_from([{"a": 1}, '{"a": 1}', {"a": 1, "b": None}])


@given(
    key=st.sampled_from(["arguments", "parameters", "args", "input"]),
    arguments=ARGUMENTS,
    nested=st.booleans(),
    shape=st.sampled_from([lambda call: [call], lambda call: call, json.dumps, lambda call: json.dumps([call])]),
)
def test_a_call_is_read_in_every_published_shape(key: str, arguments: Any, nested: bool, shape: Any) -> None:
    call = {"name": "add", key: arguments}
    assert read_calls(shape({"type": "function", "function": call} if nested else call)) == WANTED


@pytest.mark.parametrize("turn", ["function_call", "tool_call"])
def test_a_call_may_be_a_turn_of_its_own_or_the_older_key(turn: str) -> None:
    call = json.dumps({"name": "add", "arguments": {"a": 1}})
    turns = [{"from": turn, "value": call}, {"role": "assistant", "content": None, "function_call": json.loads(call)}]
    for said in turns:
        row = {"conversations": [{"from": "human", "value": "q"}, said, {"from": "tool", "value": "1"}]}
        row["conversations"].append({"from": "gpt", "value": "a"})
        assert parse_row(row, origin="a:1").messages[2].tool_calls == WANTED


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        (5, "wrong type"),
        ([5], "wrong type: a tool call"),
        ([{"arguments": {}}], "wrong type: a tool call without a name"),
        ([{"name": "f", "arguments": [1]}], "wrong type: arguments of f"),
        ([{"name": "f", "arguments": "{a"}], "wrong type: arguments"),
        ([{"name": "f", "kwargs": {"a": 1}}], "unknown key of a tool call: kwargs"),
        ([{"name": "f", "arguments": {"a": 1}, "input": {"a": 2}}], "two sets of arguments"),
        ("no JSON", "wrong type: tool_calls"),
    ],
)
def test_calls_that_cannot_be_read_are_refused(calls: Any, reason: str) -> None:
    with pytest.raises(RowError, match=f"^{reason}"):
        read_calls(calls)


def test_tools_may_be_texts_and_lose_the_nulls_that_parquet_adds() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "int"}}}}}
    padded = json.loads(json.dumps(tool))
    padded["function"]["parameters"]["properties"]["of_another"] = None
    for tools in ([tool], json.dumps([tool]), [json.dumps(tool)], [padded]):
        assert read_tools(tools) == (tool,)
    for wrong in ({"type": "function"}, [5], "text"):
        with pytest.raises(RowError, match="^wrong type"):
            read_tools(wrong)


def test_a_tool_that_says_nothing_at_all_is_refused() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}
    turns = [
        {"role": "user", "content": "q"},
        call,
        {"role": "tool", "content": None},
        {"role": "assistant", "content": "a"},
    ]
    with pytest.raises(RowError, match="^empty tool result"):
        parse_row({"messages": turns}, origin="a:1")


TOOLS = "".join(
    (
        "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}{% for turn in messages %}",
        "{{ '<|im_start|>' + turn.role + '\\n' }}{% if turn.role == 'assistant' %}{% generation %}{{ turn.content }}",
        "{% for call in turn.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}{{ '<|im_end|>' }}",
        "{% endgeneration %}{% else %}{{ turn.content + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}",
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    )
)


def test_tools_are_rendered_by_a_template_that_has_them_and_refused_by_one_that_has_not() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "parameters": {"a": 1}}]}
    turns = [
        {"role": "user", "content": "q"},
        call,
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "a"},
    ]
    tools = [{"type": "function", "function": {"name": "add"}}]
    row = parse_row({"messages": turns, "tools": tools}, origin="a:1")
    formatter = ChatFormatter(chatml_tokenizer(), TOOLS)
    encoded = formatter.encode(row.messages)
    text = formatter.tokenizer.decode(encoded.ids.tolist())
    assert '"name": "add"' in text.split("user")[0]
    trained = formatter.tokenizer.decode(encoded.ids[encoded.loss_mask].tolist())
    assert trained == '{"name": "add", "arguments": {"a": 1}}<|im_end|>a<|im_end|>'
    with pytest.raises(RowError, match="^tools: the chat template renders no tool"):
        ChatFormatter(chatml_tokenizer(), load_template("chatml")).encode(row.messages)
