"""What clients send beyond the plain question: every form of it is understood, or its effect is seen."""

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from live import ANSWER, MODEL, QUESTION, TRACE, Live, serving

USER = {"role": "user", "content": QUESTION}
SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["x"],
    "additionalProperties": False,
}


NESTED = {
    "type": "object",
    "properties": {"x": {"$ref": "#/$defs/digit"}},
    "required": ["x"],
    "additionalProperties": False,
    "$defs": {"digit": {"type": "integer", "minimum": 0, "maximum": 9}},
}


def chat(live: Live, **fields: Any) -> dict[str, Any]:
    reply = httpx.post(
        f"{live.url}/v1/chat/completions", json={"model": MODEL, "messages": [USER], **fields}, timeout=60
    )
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def text(live: Live, **fields: Any) -> list[str]:
    reply = httpx.post(f"{live.url}/v1/completions", json={"model": MODEL, "max_tokens": 3, **fields}, timeout=60)
    assert reply.status_code == 200, reply.text
    return [choice["text"] for choice in reply.json()["choices"]]


def stream(live: Live, path: str, **fields: Any) -> list[dict[str, Any]]:
    body = {"model": MODEL, "stream": True, **fields}
    with httpx.stream("POST", f"{live.url}{path}", json=body, timeout=60) as reply:
        return [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {")]


def test_a_prompt_comes_in_four_forms(live: Live) -> None:
    [one] = text(live, prompt="a", temperature=0)
    tokens = live.engine.tokenizer(None).hf_tokenizer("a")["input_ids"]
    assert text(live, prompt=tokens, temperature=0) == [one]
    assert text(live, prompt=["a", "a"], temperature=0) == [one, one]
    assert text(live, prompt=[tokens, tokens, tokens], temperature=0) == [one] * 3


def test_neutral_values_change_nothing(live: Live) -> None:
    neutral = {
        "min_p": 0, "top_k": -1, "repetition_penalty": 1, "frequency_penalty": 0, "presence_penalty": 0.0,
        "ignore_eos": False, "skip_special_tokens": True, "min_tokens": 0, "stop_token_ids": [], "logit_bias": {},
        "best_of": 1, "tools": [], "response_format": {"type": "text"}, "add_generation_prompt": True,
    }  # fmt: skip
    assert chat(live, **neutral)["choices"][0]["message"]["content"] == ANSWER


def test_penalties_and_top_k_have_an_effect(live: Live) -> None:
    ask = {"prompt": "b b b b", "max_tokens": 12, "temperature": 0}
    assert text(live, **ask) != text(live, **ask, repetition_penalty=5.0)
    hot = {"prompt": "b", "max_tokens": 12, "temperature": 2.0, "seed": 1}
    assert text(live, **hot, top_k=1) == text(live, prompt="b", max_tokens=12, temperature=0)
    assert text(live, **hot) != text(live, **hot, top_k=1)


def test_a_bias_is_added_to_a_token_s_logit(live: Live) -> None:
    ask: dict[str, Any] = {"prompt": "What", "max_tokens": 4, "temperature": 0}
    [token] = live.engine.tokenizer(None).hf_tokenizer.encode("#", add_special_tokens=False)
    assert text(live, **ask, logit_bias={str(token): 100}) == ["####"]
    assert text(live, **ask, logit_bias={str(token): -100, "5": 0}) == text(live, **ask)


def test_several_system_turns_are_one(live: Live) -> None:
    def prompt(*system: str) -> int:
        turns = [{"role": role, "content": words} for role, words in zip(["system", "developer"], system, strict=False)]
        tokens: int = chat(live, messages=[*turns, USER], max_tokens=1)["usage"]["prompt_tokens"]
        return tokens

    assert prompt("Be brief.", "Be kind.") == prompt("Be brief.\n\nBe kind.")


def test_unknown_fields_of_messages_are_named_once(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "nemo_reasoning.serving")
    logging.getLogger("nemo_reasoning.serving").propagate = True
    odd = {"role": "assistant", "content": "x", "refusal": None, "annotations": [], "audio_7": 1}
    for _ in range(2):
        chat(live, messages=[USER, odd, USER], max_tokens=1)
    assert [record.message.count("messages.audio_7") for record in caplog.records].count(1) == 1


@pytest.mark.parametrize(
    ("last", "reasoning", "content"),
    [
        ({"content": "<think>\n2 * 20"}, "= 40", ANSWER),
        ({"content": "", "reasoning_content": "2 * 20"}, "= 40", ANSWER),
        ({"content": "The answer", "reasoning_content": TRACE}, None, " is 42."),
        ({"content": f"<think>\n{TRACE}\n</think>\n\nThe answer", "prefix": True}, None, " is 42."),
    ],
)
def test_the_last_message_is_continued(live: Live, last: dict[str, Any], reasoning: str | None, content: str) -> None:
    fields = {} if last.get("prefix") else {"continue_final_message": True, "add_generation_prompt": False}
    [choice] = chat(live, messages=[USER, {"role": "assistant", **last}], **fields)["choices"]
    said = choice["message"]["reasoning"]
    assert (said and said.strip(), choice["message"]["content"]) == (reasoning, content)


@pytest.mark.parametrize("effort", ["minimal", "low", "medium", "high", "xhigh"])
def test_every_effort_is_a_budget(live: Live, effort: str) -> None:
    budget = {"minimal": 2, "low": 4, "medium": 16, "high": 64, "xhigh": 128}[effort]
    used = chat(live, reasoning_effort=effort)["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert 0 < used <= budget


def test_several_choices_are_streamed_as_they_are_whole(live: Live) -> None:
    fields = {"messages": [USER], "n": 3, "temperature": 1.5, "seed": 5, "max_tokens": 60}
    whole = [choice["message"]["content"] for choice in chat(live, **fields)["choices"]]
    streamed = ["", "", ""]
    for event in stream(live, "/v1/chat/completions", **fields):
        for choice in event["choices"]:
            streamed[choice["index"]] += choice["delta"].get("content") or ""
    assert streamed == whole


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
def test_an_answer_matches_its_schema(live: Live, thinking: bool, streamed: bool) -> None:
    fields: dict[str, Any] = {
        "messages": [USER],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
        "chat_template_kwargs": {"enable_thinking": thinking},
        "max_tokens": 120,
    }
    if streamed:
        events = stream(live, "/v1/chat/completions", **fields)
        deltas = [choice["delta"] for event in events for choice in event["choices"]]
        content = "".join(delta.get("content") or "" for delta in deltas)
        reasoning = "".join(delta.get("reasoning") or "" for delta in deltas)
    else:
        message = chat(live, **fields)["choices"][0]["message"]
        content, reasoning = message["content"], message["reasoning"] or ""
    assert set(json.loads(content)) == {"x"}
    assert (reasoning == TRACE) == thinking


def test_log_probabilities_and_their_places_are_those_of_the_text(live: Live) -> None:
    fields = {"prompt": "What is", "max_tokens": 20, "temperature": 0, "logprobs": 1}
    body = httpx.post(f"{live.url}/v1/completions", json={"model": MODEL, **fields}, timeout=60).json()
    [choice] = body["choices"]
    parts = [event["choices"][0] for event in stream(live, "/v1/completions", **fields)]
    assert "".join(part["text"] for part in parts) == choice["text"] == "".join(choice["logprobs"]["tokens"])
    told = [part["logprobs"] for part in parts if part["logprobs"]]
    for name in ("tokens", "token_logprobs", "text_offset"):
        assert [entry for part in told for entry in part[name]] == choice["logprobs"][name]


def test_an_echo_is_the_prompt_with_its_log_probabilities(live: Live) -> None:
    hf, model = live.engine.tokenizer(None).hf_tokenizer, live.engine.model
    prompts = ["What is 2 times 21? \N{SNOWMAN}", "b" * 300, "x"]
    for logprobs in (2, None):
        asked = {
            "model": MODEL,
            "prompt": prompts,
            "echo": True,
            "logprobs": logprobs,
            "max_tokens": 1,
            "temperature": 0,
        }
        choices = httpx.post(f"{live.url}/v1/completions", json=asked, timeout=60).json()["choices"]
        for prompt, choice in zip(prompts, choices, strict=True):
            assert choice["text"].startswith(prompt)
            if logprobs is None:
                assert choice["logprobs"] is None
                continue
            told, ids = choice["logprobs"], torch.tensor([hf.encode(prompt, add_special_tokens=False)])
            with torch.inference_mode():
                expected = model(input_ids=ids).logits[0].log_softmax(-1)
            assert len(told["token_logprobs"]) == len(told["top_logprobs"]) == ids.shape[1] + 1
            assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
            values = [expected[place, token].item() for place, token in enumerate(ids[0, 1:])]
            assert told["token_logprobs"][1:-1] == pytest.approx(values, abs=1e-4)
            assert "".join(told["tokens"]) == choice["text"]


def made_with(arguments: str) -> dict[str, Any]:
    return {"id": "1", "function": {"name": "add", "arguments": arguments}}


def test_a_template_with_tools_is_told_of_them(taught_llama: Path) -> None:
    template = (
        "{% if tools %}tools: {{ tools | tojson }}\n{% endif %}"
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
        "{% for call in message.tool_calls or [] %}{{ call.function.arguments.a }}{% endfor %}"
        "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    )
    call = made_with('{"a": 77}')
    turns = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]
    with serving(taught_llama, chat_template=template) as live:
        tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
        fields = {"messages": turns, "tools": [tool], "max_tokens": 2}
        plain = chat(live, messages=turns, max_tokens=2)["usage"]["prompt_tokens"]
        assert chat(live, **fields)["usage"]["prompt_tokens"] > plain
        assert chat(live, **fields, tool_choice="none")["usage"]["prompt_tokens"] == plain
        for arguments in ("1" * 5000, "[" * 5000):
            chat(live, messages=[USER, {"role": "assistant", "tool_calls": [made_with(arguments)]}, turns[2]])
        deep: dict[str, Any] = {}
        for _ in range(600):
            deep = {"a": deep}
        nested = {"type": "function", "function": {"name": "deep", "parameters": deep}}
        body = {"model": MODEL, "messages": [USER], "tools": [nested], "tool_choice": "required"}
        answer = httpx.post(f"{live.url}/v1/chat/completions", json=body, timeout=60)
        assert (answer.status_code, "nested too deeply" in answer.text) == (400, True)
        other = {"type": "function", "function": {"name": "double", "parameters": NESTED}}
        fields |= {"messages": [USER], "tools": [other, tool], "max_tokens": 90}
        named = {"type": "function", "function": {"name": "double"}}
        for thinking in (True, False):
            asked = {**fields, "tool_choice": named, "chat_template_kwargs": {"enable_thinking": thinking}}
            [choice] = chat(live, **asked)["choices"]
            [made] = choice["message"]["tool_calls"]
            assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "")
            assert made["function"]["name"] == "double"
            assert set(json.loads(made["function"]["arguments"])) == {"x"}
            events = stream(live, "/v1/chat/completions", **asked)
            calls = [one for event in events for one in event["choices"][0]["delta"].get("tool_calls", [])]
            assert [one["function"] for one in calls] == [made["function"]]
