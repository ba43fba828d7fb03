"""What clients may not ask gets the right status, and a message that says what to change."""

import json
from typing import Any

import httpx
import pytest
from live import MODEL, QUESTION, Live

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": QUESTION}


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
        ({"messages": []}, "at least 1 item", "messages"),
        ({"messages": "hi"}, "valid list", "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "'system', 'developer', 'user' or 'assistant'", None),
        ({"messages": [{"role": "user"}]}, "is missing", "messages.0.content"),
        ({"messages": [USER, {"role": "assistant", "content": "x"}]}, "end with a user's", None),
        ({"messages": [USER, {"role": "system", "content": "x"}, USER]}, "it comes first", None),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "'text'", None),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "unicode string", None),
        ({"messages": [{"role": "user", "content": 5}]}, "valid string (got 5)", "messages.0.content"),
        ({"model": 5}, "valid string (got 5)", "model"),
        ({"stop": 5}, "stop: Input should be a valid string (got 5)", "stop"),
        ({"a b": 5}, "a b: unknown field", "a b"),
        ({"temperature": "hot"}, 'valid number (got "hot")', "temperature"),
        ({"temperature": -1}, "greater than or equal to 0 (got -1)", "temperature"),
        ({"top_p": 0}, "greater than 0", "top_p"),
        ({"n": 0}, "greater than or equal to 1", "n"),
        ({"n": 9}, "ask for up to 8", "n"),
        ({"n": True}, "valid integer", "n"),
        ({"max_tokens": 0}, "greater than or equal to 1", "max_tokens"),
        ({"max_tokens": 1.5}, "valid integer (got 1.5)", "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "give one of them", None),
        ({"max_tokens": 100_000}, "context length is 512", None),
        ({"stop": [""]}, "empty string", "stop"),
        ({"top_logprobs": 2}, "set logprobs=true", None),
        ({"logprobs": True, "top_logprobs": 21}, "less than or equal to 20", "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools: is not supported here; remove it", "tools"),
        ({"response_format": {"type": "json_object"}}, "'text'", None),
        ({"frequency_penalty": 0.5}, "should be 0", "frequency_penalty"),
        ({"surprise": 1}, "unknown field; remove it (got 1)", "surprise"),
        ({"thinking_token_budget": -1}, "greater than or equal to 0 (got -1)", "thinking_token_budget"),
        ({"reasoning_effort": "enormous"}, "'none', 'low', 'medium' or 'high'", "reasoning_effort"),
        ({"seed": 2**70}, "less than", "seed"),
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
        ({"prompt": [10**6]}, "token 1000000 in the prompt; the model knows 0 to 258"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "no token"),
        ({"prompt": "x", "echo": True}, "echo"),
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
        (b"", "application/json", "send"),
        (b"[]", "application/json", "no JSON object"),
        (b'{"model": "\xff"}', "application/json", "no UTF-8"),
        (b"[" * 50_000, "application/json", "nested too deeply"),
        (b'{"messages":' + b'{"a":' * 5000 + b"1" + b"}" * 5001, "application/json", "nested too deeply"),
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


def test_what_is_not_there(live: Live) -> None:
    refused(httpx.get(live.url + "/v2/chat"), 404, "there is no /v2/chat here")
    refused(httpx.get(live.url + CHAT), 405, "GET does not work on /v1/chat/completions")
    refused(post(live, {"model": "no", "messages": [USER]}), 404, "served: tiny", "model")


def test_null_counts_as_absent(live: Live) -> None:
    assistant = {"role": "assistant", "content": "x", "reasoning": None, "reasoning_content": "y", "name": None}
    body = {"model": MODEL, "messages": [USER, assistant, USER], "stop": None, "max_tokens": None, "thinking": None}
    assert post(live, body | {"frequency_penalty": 0.0, "user": "me"}).status_code == 200
