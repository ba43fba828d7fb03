"""Calls of tools in what a model writes, whole and in pieces."""

import json
from typing import Any

import pytest

from nemo_reasoning.inference.request import Completion, Delta
from nemo_reasoning.serving.responses import ChatFormat
from nemo_reasoning.serving.tools import ToolStream, find_tool_calls

CALLS = [
    ('<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', "", [("add", {"a": 1})]),
    ('Sure.\n<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>', "Sure.", [("add", {"a": 1})]),
    ('{"name": "add", "parameters": {"a": 1}}', "", [("add", {"a": 1})]),
    (
        '{"name": "add", "parameters": {}}; {"name": "add", "parameters": {"a": 2}}',
        "",
        [("add", {}), ("add", {"a": 2})],
    ),
    ('[{"name": "add", "arguments": {}}]', "", [("add", {})]),
    ('{"name": "other", "parameters": {}}', None, []),
    ('The call is {"name": "add", "parameters": {}}', None, []),
    ('<tool_call>{"name": "add"', None, []),
    ('{"name": "add", "parameters": 5}', None, []),
    ("[" * 5000, None, []),
    ("<tool_call>{" + '"a":{' * 5000 + "}</tool_call>", None, []),
    ('{"name": "add", "parameters": {"a": %s}}' % ("1" * 5000), None, []),
    ('{"name": "add", "parameters": "%s"}' % ("[" * 5000), None, []),
    ('{"name": "add", "parameters": {"a": NaN}}', None, []),
    ('<tool_call>{"name": "add", "arguments": {"a": [-1e999]}}</tool_call>', None, []),
    ('{"name": "add", "arguments": "{\\"a\\": Infinity}"}', None, []),
    ('{"name": "add", "parameters": {"a": "\\ud83d"}}', None, []),
    ('{"name": "add", "parameters": {"a": "\\ud83d\\ude00"}}', "", [("add", {"a": "😀"})]),
    ("", None, []),
]


@pytest.mark.parametrize(("said", "rest", "calls"), CALLS)
def test_calls_are_found_where_they_are_whole(said: str, rest: str | None, calls: list[Any]) -> None:
    content, found = find_tool_calls(said, ["add"])
    assert content == (said if rest is None else rest)
    assert [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in found] == calls
    assert len({call["id"] for call in found}) == len(found)


MIXED = [
    " with space before",
    "a < b, <tool, <tool_call> that is none </tool_call> \n",
    "\n {no JSON}",
    'x \n<tool_call>{"name": "add"}</tool_call> y <tool_call>{"name": "add"}</tool_call>\n',
]


@pytest.mark.parametrize("said", [said for said, _, _ in CALLS] + MIXED)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_streamed_content_and_calls_are_those_of_the_whole(said: str, size: int) -> None:
    stream = ToolStream(["add"])
    told = [stream.push(said[place : place + size]) for place in range(0, len(said), size)]
    rest, calls = stream.finish()
    content, found = find_tool_calls(said, ["add"])
    assert "".join(told) + rest == content
    assert [call["function"] for call in calls] == [call["function"] for call in found]


def test_content_beside_tools_is_not_held_back() -> None:
    stream = ToolStream(["add"])
    assert [stream.push(piece) for piece in ("It", " is", " <", "4.", " <tool_call>")] == ["It", " is", "", " <4.", ""]


def test_a_call_is_a_choice_of_its_own() -> None:
    completion = Completion(
        text="", reasoning="", answer=CALLS[2][0], well_formed=True, prompt_tokens=1, completion_tokens=1,
        reasoning_tokens=0, finish_reason="stop",
    )  # fmt: skip
    form = ChatFormat(logprobs=False, tools=["add"])
    form.part(0, Delta("", completion.answer))
    whole, end = form.whole(0, completion), form.end(0, completion)
    assert whole["finish_reason"] == end["finish_reason"] == "tool_calls"
    assert whole["message"]["content"] == ""
    assert end["delta"]["tool_calls"][0]["index"] == 0
