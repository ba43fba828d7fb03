"""What clients may not ask gets the right status, and a message that says what to change."""

import gzip
import json
import re
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from live import MODEL, QUESTION, Live

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": QUESTION}
IMAGE = {"type": "image_url", "image_url": "x"}
PREFIX = {"role": "assistant", "content": "<think>\nSo", "prefix": True}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def post(live: Live, body: Any, *, path: str = CHAT, **options: Any) -> httpx.Response:
    return httpx.post(live.url + path, json=body, timeout=60, **options)


def refused(response: httpx.Response, status: int, message: str, param: str | None = None) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert message in error["message"]
    assert param is None or error["param"] == param
    assert error["type"].endswith("_error")
    assert error["code"]


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        ({"messages": []}, "give 1 or more", "messages"),
        ({"messages": "hi"}, "give a list", "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "'user', 'assistant' or 'tool'", None),
        ({"messages": [{"role": "user"}]}, "has no content; send a text", "messages.0"),
        ({"messages": [USER, {"role": "assistant", "content": "x"}]}, "set continue_final_message=true", None),
        ({"messages": [USER], "continue_final_message": True}, "end with the assistant's", None),
        ({"messages": [USER, {"role": "system", "content": "x"}, USER]}, "system turns come first", None),
        ({"messages": [{"role": "system", "content": "x"}]}, "end with a user's", None),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "reads text only",
            "messages.0.content.0",
        ),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "whole Unicode characters", None),
        ({"messages": [{"role": "user", "content": 5}]}, "give a text, or a list (got 5)", "messages.0.content"),
        ({"model": 5}, "give a text (got 5)", "model"),
        ({"stop": 5}, "stop: give a text, or a list (got 5)", "stop"),
        ({"stop": ["a"] * 17}, "17 strings; give at most 16", "stop"),
        ({"a b": 5}, "a b: unknown field", "a b"),
        ({"temprature": 1}, "did you mean temperature?", "temprature"),
        ({"temperature": "hot"}, 'give a number (got "hot")', "temperature"),
        ({"temperature": -1}, "give 0 or more (got -1)", "temperature"),
        ({"top_p": 0}, "give more than 0 (got 0)", "top_p"),
        ({"top_k": -2}, "give -1 or more (got -2)", "top_k"),
        ({"min_p": 2}, "give 1 or less (got 2)", "min_p"),
        ({"n": 0}, "give 1 or more (got 0)", "n"),
        ({"n": 9}, "ask for up to 8", "n"),
        ({"n": True}, "give a whole number", "n"),
        ({"max_tokens": 0}, "give 1 or more (got 0)", "max_tokens"),
        ({"max_tokens": 1.5}, "give a whole number (got 1.5)", "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "give one of them", None),
        ({"max_tokens": 100_000}, "context length is 512", "max_tokens"),
        ({"messages": [{"role": "user", "content": "x" * 600}]}, "shorten the prompt", "messages"),
        ({"stop": [""]}, "empty string", "stop"),
        ({"top_logprobs": 2}, "set logprobs=true", None),
        ({"logprobs": True, "top_logprobs": 21}, "give 20 or less", "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "is missing; send it", "tools.0.function"),
        ({"tools": [TOOL]}, "the chat template of this model knows no tools", None),
        ({"tools": [TOOL], "tool_choice": "any"}, "'none', 'auto' or 'required'", "tool_choice"),
        ({"tool_choice": "required"}, "there are no tools; send tools", None),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "gone"}}},
            "tool_choice names 'gone'",
            None,
        ),
        (
            {"tools": [TOOL], "tool_choice": "required", "response_format": {"type": "json_object"}},
            "remove one of the two",
            None,
        ),
        ({"response_format": {"type": "yaml"}}, "'json_object' or 'json_schema'", "response_format.type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "no"}}}}, "schema", None),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "schema is missing", None),
        ({"frequency_penalty": 2.5}, "give 2 or less (got 2.5)", "frequency_penalty"),
        ({"logit_bias": {"a": 1.0}}, "'a' is no number of a token", "logit_bias"),
        ({"logit_bias": {"1" * 5000: 1.0}}, "is no number of a token", "logit_bias"),
        ({"logit_bias": {"5": 101}}, "give 100 or less (got 101)", "logit_bias.5"),
        ({"logit_bias": {"5000": 1}}, "there is no token 5000", None),
        ({"surprise": 1}, "unknown field; remove it (got 1)", "surprise"),
        ({"echo": True}, "unknown field; remove it", "echo"),
        ({"thinking_token_budget": -1}, "give 0 or more (got -1)", "thinking_token_budget"),
        ({"reasoning_effort": "enormous"}, "'minimal', 'low', 'medium', 'high' or 'xhigh'", "reasoning_effort"),
        ({"seed": 2**70}, "give less than", "seed"),
    ],
)
def test_a_bad_chat_is_refused(live: Live, fields: dict[str, Any], message: str, param: str | None) -> None:
    body = {"model": MODEL, "messages": [USER], **fields}
    content = json.dumps(body)
    response = httpx.post(live.url + CHAT, content=content, headers={"Content-Type": "application/json"}, timeout=60)
    refused(response, 400, message, param)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"chat_template_kwargs": {"enable_thinking": False}, "thinking": {"type": "enabled"}},
            "chat_template_kwargs.enable_thinking=false contradicts thinking.type=enabled",
        ),
        (
            {"reasoning_effort": "none", "chat_template_kwargs": {"thinking": True}},
            "chat_template_kwargs.thinking=true contradicts reasoning_effort=none",
        ),
        (
            {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}},
            "turns thinking off, but reasoning_effort=high asks for some",
        ),
        (
            {"reasoning_budget": 5, "nvext": {"max_thinking_tokens": 6}},
            "reasoning_budget=5 contradicts nvext.max_thinking_tokens=6",
        ),
        ({"thinking": {"type": "disabled", "budget_tokens": 3}}, "thinking.budget_tokens=3 asks for some"),
        ({"min_thinking_tokens": 9, "thinking_token_budget": 3}, "min_thinking_tokens=9 exceeds the budget of 3"),
        ({"min_thinking_tokens": 9, "reasoning_effort": "none"}, "min_thinking_tokens=9 asks for some"),
        (
            {"messages": [{"role": "system", "content": "detailed thinking off"}, {**USER, "content": "x /think"}]},
            "messages='detailed thinking off' contradicts messages='/think'",
        ),
        (
            {"messages": [USER, PREFIX], "reasoning_effort": "none"},
            "contradicts messages=an assistant's turn to be continued within its thinking",
        ),
        (
            {"messages": [{"role": "system", "content": "/no_think"}, USER], "thinking_token_budget": 3},
            "messages='/no_think' turns thinking off",
        ),
    ],
)
def test_conflicting_wishes_are_refused(live: Live, fields: dict[str, Any], message: str) -> None:
    response = post(live, {"model": MODEL, "messages": [USER], **fields})
    assert response.status_code == 400, response.text
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": [10**6]}, "no token 1000000; the model knows 0 to 258"),
        ({"prompt": []}, "prompt: give a text, a list of texts, a list of tokens, or a list of lists of tokens"),
        ({"prompt": [["a"]]}, "prompt: give a text"),
        ({"prompt": ["a", 5]}, "prompt: give a text"),
        ({"prompt": ["a"] * 129}, "129 prompts; give at most 128"),
        ({"prompt": ""}, "no token"),
        ({"prompt": "x", "echo": True, "stream": True}, "set stream=false"),
        ({"prompt": "x", "echo": 1}, "echo: give true or false"),
        ({"prompt": "x", "suffix": "y"}, "unknown field"),
        ({"prompt": "x", "max_tokens": 600}, "context length is 512"),
    ],
)
def test_a_bad_completion_is_refused(live: Live, body: dict[str, Any], message: str) -> None:
    refused(post(live, {"model": MODEL, **body}, path="/v1/completions"), 400, message)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"{", "application/json", "no JSON: Expecting property name"),
        (b"", "application/json", "the body is missing; send"),
        (b"[]", "application/json", "no JSON object"),
        (b'{"model": "\xff"}', "application/json", "no UTF-8"),
        (b"[" * 50_000, "application/json", "nested too deeply"),
        (b'{"messages":' + b'{"a":' * 5000 + b"1" + b"}" * 5001, "application/json", "nested too deeply"),
        (b"{}{}", "application/json", "Extra data"),
        (b'{"a": ' + b"9" * 5000 + b"}", "application/json", "thousands of digits"),
        (b"{}", "text/plain", "Content-Type: application/json"),
        (b"a=b", "application/x-www-form-urlencoded", "Content-Type: application/json"),
    ],
)
def test_what_is_no_json_is_refused(live: Live, content: bytes, kind: str, message: str) -> None:
    refused(httpx.post(live.url + CHAT, content=content, headers={"Content-Type": kind}), 400, message)


def test_a_body_that_is_too_large_is_refused(live: Live) -> None:
    large = {"model": MODEL, "messages": [{"role": "user", "content": "x" * 100_000}]}
    refused(post(live, large), 413, "exceeds 100000 bytes")

    def in_pieces() -> Any:
        for _ in range(3):
            yield b'"' + b"x" * 40_000

    refused(
        httpx.post(live.url + CHAT, content=in_pieces(), headers={"Content-Type": "application/json"}),
        413,
        "exceeds 100000 bytes",
    )


def test_a_compressed_body_is_refused(live: Live) -> None:
    content = gzip.compress(json.dumps({"model": MODEL, "messages": [USER]}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    refused(httpx.post(live.url + CHAT, content=content, headers=headers), 415, "without Content-Encoding")


def test_what_is_not_there(live: Live) -> None:
    for path in ("/", "/health", "/ready", "/v1/models"):
        assert (httpx.head(live.url + path).status_code, httpx.head(live.url + path).content) == (200, b"")
    refused(httpx.get(live.url + "/v2/chat"), 404, "there is no /v2/chat here")
    refused(httpx.get(live.url + CHAT), 405, "GET does not work on /v1/chat/completions")
    refused(post(live, {"model": "no", "messages": [USER]}), 404, "served: tiny", "model")


@pytest.mark.parametrize(
    "model", ["../../etc/passwd", "/etc/passwd", "\x1b[2J", "tiny\x00", "x" * 90_000, "tiny/../tiny"]
)
def test_a_model_is_a_name_and_no_path(live: Live, model: str) -> None:
    refused(post(live, {"model": model, "messages": [USER]}), 404, "served: tiny", "model")
    refused(httpx.get(f"{live.url}/v1/models/{quote(model[:999], safe='')}"), 404, "served: tiny", "model")


@pytest.mark.parametrize("headers", [{"X-Large": "x" * 200_000}, {f"X-{number}": "x" * 500 for number in range(400)}])
def test_headers_do_not_fill_the_memory(live: Live, headers: dict[str, str]) -> None:
    with suppress(httpx.TransportError):  # it may hang up while it is still told more
        assert 400 <= httpx.get(live.url + "/health", headers=headers).status_code < 500
    assert httpx.get(live.url + "/health").status_code == 200


def test_null_counts_as_absent(live: Live) -> None:
    assistant = {"role": "assistant", "content": "x", "reasoning": None, "reasoning_content": "y", "name": None}
    body = {"model": MODEL, "messages": [USER, assistant, USER], "stop": None, "max_tokens": None, "thinking": None}
    assert post(live, body | {"frequency_penalty": 0.0, "user": "me"}).status_code == 200


def test_no_refusal_speaks_a_validators_language(live: Live) -> None:
    wrong: dict[str, list[Any]] = {
        "messages": [5, [5], [{}], [{"role": "user", "content": [5]}], [{"role": "user", "content": {}}]],
        "temperature": [[], "x", 9, float("nan")],
        "stop": [{}, [5]],
        "n": ["x", 0.5, 999],
        "tools": ["x", [5]],
        "response_format": ["json", {}],
        "chat_template_kwargs": [5, {"enable_thinking": "yes"}],
        "stream": ["yes", 2],
        "seed": ["x", 1.5],
        "reasoning_effort": [5],
        "nvext": [[], {"x": 1}],
    }
    for field, values in wrong.items():
        for value in values:
            content = json.dumps({"model": MODEL, "messages": [USER], field: value})
            reply = httpx.post(live.url + CHAT, content=content, headers={"Content-Type": "application/json"})
            assert reply.status_code == 400, (field, value, reply.text)
            message = reply.json()["error"]["message"]
            assert not re.search(r"Input should|valid (string|integer|list|dict)|Value error|pydantic", message)
            assert "give " in message or "send" in message or "remove" in message or "JSON" in message, message
