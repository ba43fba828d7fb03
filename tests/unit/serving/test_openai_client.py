"""The official client, unmodified, against the service."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from live import ANSWER, MODEL, QUESTION, TRACE, Live
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

Serve = Callable[..., AbstractContextManager[Live]]
ASKED: list[Any] = [{"role": "user", "content": QUESTION}]


def test_a_chat_thinks_and_answers(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=ASKED)
    [choice] = reply.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", ANSWER, "stop")
    extra: Any = choice.message
    assert extra.reasoning == extra.reasoning_content == TRACE
    usage = reply.usage
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == len(f"\n{TRACE}\n")
    assert usage.completion_tokens == len(f"<think>\n{TRACE}\n</think>\n\n{ANSWER}") + 1
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert (reply.object, reply.model, reply.id[:9]) == ("chat.completion", MODEL, "chatcmpl-")


def test_thinking_off_leaves_no_reasoning(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=ASKED, reasoning_effort="none")
    message: Any = reply.choices[0].message
    assert (message.content, message.reasoning, message.reasoning_content) == ("It is 43.", None, None)


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    deltas: list[Any] = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert len(deltas) > 20
    thoughts = [getattr(delta, "reasoning", None) or "" for delta in deltas]
    assert "".join(thoughts) == TRACE
    assert thoughts == [getattr(delta, "reasoning_content", None) or "" for delta in deltas]
    assert "".join(delta.content or "" for delta in deltas) == ANSWER
    assert all("content" not in delta.model_fields_set or delta.content is not None for delta in deltas)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    whole = client.chat.completions.create(model=MODEL, messages=ASKED)
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_choices_follow_the_seed(client: openai.OpenAI) -> None:
    def texts(seed: int) -> list[str | None]:
        reply = client.chat.completions.create(
            model=MODEL, messages=ASKED, n=4, seed=seed, temperature=2, reasoning_effort="none", max_tokens=20
        )
        assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
        return [choice.message.content for choice in reply.choices]

    first = texts(5)
    assert first == texts(5)
    assert first[1:] == texts(6)[:3]
    assert len(set(first)) > 1


def test_streamed_choices_are_told_apart(client: openai.OpenAI) -> None:
    options: Any = {"model": MODEL, "messages": ASKED, "n": 3, "seed": 1, "temperature": 2.0, "max_tokens": 20}
    whole = client.chat.completions.create(**options)
    words = {0: "", 1: "", 2: ""}
    for chunk in client.chat.completions.create(**options, stream=True):
        for choice in chunk.choices:
            words[choice.index] += choice.delta.content or ""
    assert list(words.values()) == [choice.message.content for choice in whole.choices]


def test_stop_strings_and_limits(client: openai.OpenAI) -> None:
    stopped = client.chat.completions.create(model=MODEL, messages=ASKED, stop=["answer", "zz"])
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("The ", "stop")
    cut = client.chat.completions.create(model=MODEL, messages=ASKED, max_completion_tokens=10)
    assert cut.choices[0].message.content  # no limit ends within the thinking


def test_log_probabilities(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=ASKED, logprobs=True, top_logprobs=3)
    told = reply.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert "".join(entry.token for entry in told.content).strip() == ANSWER
    assert all(len(entry.top_logprobs) == 3 and entry.logprob <= 0 for entry in told.content)
    streamed: list[Any] = []
    for chunk in client.chat.completions.create(
        model=MODEL, messages=ASKED, logprobs=True, top_logprobs=3, stream=True
    ):
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content or []
    assert [entry.token for entry in streamed] == [entry.token for entry in told.content]


@pytest.mark.parametrize(("budget", "words"), [(0, {}), (5, {}), (5, {"min_thinking_tokens": 5})])
def test_budgets(client: openai.OpenAI, budget: int, words: dict[str, int]) -> None:
    extra = {"thinking_token_budget": budget, "chat_template_kwargs": {"enable_thinking": True}, **words}
    reply = client.chat.completions.create(model=MODEL, messages=ASKED, extra_body=extra)
    assert reply.usage is not None
    assert reply.usage.completion_tokens_details is not None
    assert reply.usage.completion_tokens_details.reasoning_tokens == budget
    assert reply.choices[0].message.content


def test_effort_is_a_budget(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=ASKED, reasoning_effort="low")
    assert reply.usage is not None
    assert reply.usage.completion_tokens_details is not None
    assert reply.usage.completion_tokens_details.reasoning_tokens == 4


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "nemo-reasoning"
    with pytest.raises(openai.NotFoundError, match="served: tiny"):
        client.models.retrieve("other")


def test_text_completions(client: openai.OpenAI) -> None:
    prompt = f"<|im_start|>system\ndetailed thinking off<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
    prompt += "<|im_start|>assistant\n"
    reply = client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=30, logprobs=2)
    assert (reply.choices[0].text, reply.choices[0].finish_reason) == ("It is 43.", "stop")
    assert reply.choices[0].logprobs is not None
    assert "".join(reply.choices[0].logprobs.tokens or []) == "It is 43."
    parts = client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=30, stream=True)
    assert "".join(part.choices[0].text for part in parts) == "It is 43."
    several = client.completions.create(model=MODEL, prompt=[prompt, "a"], temperature=0, max_tokens=3, n=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == several.choices[1].text == "It "
    assert several.usage is not None
    assert several.usage.prompt_tokens == reply.usage.prompt_tokens + 1 if reply.usage else False
    tokens = client.completions.create(model=MODEL, prompt=[70, 71], temperature=0, max_tokens=3)
    assert tokens.usage is not None
    assert tokens.usage.prompt_tokens == 2


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="model 'gpt' is not served here; served: tiny") as caught:
        client.chat.completions.create(model="gpt", messages=ASKED)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="context length is 512"):
        client.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=500)
    with pytest.raises(openai.BadRequestError, match="temperature: give 2 or less"):
        client.chat.completions.create(model=MODEL, messages=ASKED, temperature=3)


def test_adapters_are_models(serve: Serve, taught_llama: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(LlamaForCausalLM.from_pretrained(taught_llama), config).save_pretrained(tmp_path)
    with (
        serve(adapters={"bent": tmp_path}) as live,
        openai.OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0) as client,
    ):
        assert [model.id for model in client.models.list()] == [MODEL, "bent"]
        options: Any = {"messages": ASKED, "max_tokens": 40}
        plain, bent = (client.chat.completions.create(model=name, **options) for name in (MODEL, "bent"))
        assert plain.choices[0].message != bent.choices[0].message


def test_keys(serve: Serve) -> None:
    with serve(api_keys=["first", "second"]) as live:
        for key in ("first", "second"):
            with openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0) as client:
                assert client.models.list().data
        for wrong in ("third", "firs", "first2", "-"):
            with (
                openai.OpenAI(base_url=f"{live.url}/v1", api_key=wrong, max_retries=0) as client,
                pytest.raises(openai.AuthenticationError, match="Authorization: Bearer KEY"),
            ):
                client.models.list()
        for path in ("/metrics", "/openapi.json"):
            assert httpx.get(live.url + path).status_code == 401
            assert httpx.get(live.url + path, headers={"Authorization": "Bearer first"}).is_success
        assert httpx.get(f"{live.url}/health").is_success
