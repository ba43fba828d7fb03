"""Each vendor's way to switch and bound the thinking means the same thing."""

from typing import Any

import pytest
from live import DEFAULTS

from nemo_reasoning.reasoning.messages import Message
from nemo_reasoning.reasoning.sampling import Sampling
from nemo_reasoning.serving.handlers import chat_generation
from nemo_reasoning.serving.protocol import ChatRequest
from nemo_reasoning.serving.thinking_options import Thinking, plain_messages, thinking_of

EFFORTS = {"low": 10, "medium": 20, "high": 30}


def request(content: str = "Hi", *, system: str | None = None, **fields: Any) -> ChatRequest:
    head = [] if system is None else [{"role": "system", "content": system}]
    return ChatRequest(model="m", messages=[*head, {"role": "user", "content": content}], **fields)


@pytest.mark.parametrize(
    ("asked", "thinking"),
    [
        (request(), Thinking(None, None, 0)),
        # Llama-Nemotron
        (request(system="detailed thinking on"), Thinking("on", None, 0)),
        (request(system="detailed thinking off\n\nBe brief."), Thinking("off", None, 0)),
        # Nemotron Super v1.5, Nano v2
        (request(system="/think"), Thinking("on", None, 0)),
        (request(system="Be brief. /no_think"), Thinking("off", None, 0)),
        (request("/no_think Hi"), Thinking("off", None, 0)),
        (request("Hi\n/think"), Thinking("on", None, 0)),
        (request("what does /think do?"), Thinking(None, None, 0)),
        (request("a/think"), Thinking(None, None, 0)),
        # NIM
        (request(nvext={"max_thinking_tokens": 7}), Thinking("on", 7, 0)),
        # Nemotron 3
        (request(chat_template_kwargs={"enable_thinking": False}), Thinking("off", None, 0)),
        (request(chat_template_kwargs={"enable_thinking": True}, reasoning_budget=7), Thinking("on", 7, 0)),
        # Qwen3 on vLLM
        (request(thinking_token_budget=7), Thinking("on", 7, 0)),
        (request(chat_template_kwargs={"thinking": True}), Thinking("on", None, 0)),
        # DeepSeek
        (request(thinking={"type": "enabled"}), Thinking("on", None, 0)),
        (request(thinking={"type": "disabled"}), Thinking("off", None, 0)),
        # OpenAI
        (request(reasoning_effort="none"), Thinking("off", None, 0)),
        (request(reasoning_effort="low"), Thinking("on", 10, 0)),
        (request(reasoning_effort="high"), Thinking("on", 30, 0)),
        # budgets of nothing, and minimums
        (request(thinking_token_budget=0), Thinking("off", 0, 0)),
        (request("/think", thinking_token_budget=0), Thinking("on", 0, 0)),
        (request(min_thinking_tokens=5), Thinking("on", None, 5)),
        # the same wish twice
        (request(reasoning_budget=7, thinking_token_budget=7, thinking={"type": "enabled"}), Thinking("on", 7, 0)),
        (request(reasoning_effort="low", reasoning_budget=10), Thinking("on", 10, 0)),
    ],
)
def test_every_alias_is_understood(asked: ChatRequest, thinking: Thinking) -> None:
    assert thinking_of(asked, efforts=EFFORTS) == thinking


@pytest.mark.parametrize(
    ("asked", "turns"),
    [
        (request("Hi /no_think"), [Message("user", "Hi")]),
        (request(system="detailed thinking on"), [Message("user", "Hi")]),
        (request(system="detailed thinking on\n\nBe brief."), [Message("system", "Be brief."), Message("user", "Hi")]),
        (request(system="/no_think"), [Message("user", "Hi")]),
        (request(" Hi "), [Message("user", " Hi ")]),
    ],
)
def test_the_dialogue_is_rid_of_switches(asked: ChatRequest, turns: list[Message]) -> None:
    assert plain_messages(asked) == tuple(turns)


def test_a_turn_that_is_continued_within_its_thinking_thinks() -> None:
    turns: list[Any] = [{"role": "user", "content": "Hi"}]
    within, behind = ({"role": "assistant", "content": f"<think>\nSo{end}", "prefix": True} for end in ("", "</think>"))
    asked = [ChatRequest(model="m", messages=[*turns, last]) for last in (within, behind)]
    assert [thinking_of(one, efforts=EFFORTS).mode for one in asked] == ["on", None]


def test_turns_are_read_as_they_were_said() -> None:
    asked = ChatRequest(
        model="m",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a /think"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c /think", "reasoning": "d"},
            {"role": "user", "content": "/think e"},
        ],
    )
    assert [turn.to_dict() for turn in plain_messages(asked)] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a /thinkb"},
        {"role": "assistant", "content": "c /think"},
        {"role": "user", "content": "e"},
    ]


def test_what_is_not_said_follows_the_mode() -> None:
    on = chat_generation(request(), adapter=None, defaults=DEFAULTS)
    off = chat_generation(request("x /no_think", temperature=0.5, seed=3), adapter="a", defaults=DEFAULTS)
    assert (on.mode, on.sampling) == ("on", Sampling())
    assert (off.mode, off.sampling.temperature, off.seed, off.adapter) == ("off", 0.5, 3, "a")
    assert on.seed != chat_generation(request(), adapter=None, defaults=DEFAULTS).seed
