"""Ask a running service with the clients people use, and print what each of them got.

In an environment of its own: `pip install openai litellm langchain-openai 'pydantic-ai-slim[openai]'`, then
`python benchmarks/clients.py http://127.0.0.1:8000/v1`. A client that is not installed is shown as such; the exit
code is 1 if one of the others failed.
"""

import importlib.util
import json
import sys
from collections.abc import Callable
from typing import Any

QUESTION = "Name a colour."
TURNS = [{"role": "user", "content": QUESTION}]
SCHEMA = {
    "type": "object",
    "properties": {"color": {"type": "string", "maxLength": 20}},
    "required": ["color"],
    "additionalProperties": False,
}


def openai_checks(url: str, model: str) -> dict[str, Callable[[], object]]:
    """Return what is asked with OpenAI's own client."""
    from openai import OpenAI

    client = OpenAI(base_url=url, api_key="none", max_retries=0)
    chat = client.chat.completions
    form: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    asked: dict[str, Any] = {"model": model, "messages": TURNS, "max_tokens": 40}
    return {
        "chat": lambda: chat.create(**asked).choices[0].message.content,
        "stream": lambda: "".join(
            chunk.choices[0].delta.content or "" for chunk in chat.create(**asked, stream=True) if chunk.choices
        ),
        "json_schema": lambda: json.loads(
            chat.create(**asked | {"max_tokens": 80}, response_format=form).choices[0].message.content
        )["color"],
        "reasoning_effort": lambda: chat.create(**asked, reasoning_effort="none").usage.completion_tokens,
        "completions": lambda: client.completions.create(model=model, prompt=["a", "b"], max_tokens=4).choices[1].text,
    }


def litellm_checks(url: str, model: str) -> dict[str, Callable[[], object]]:
    """Return what is asked with litellm."""
    import litellm

    asked: dict[str, Any] = {
        "model": f"openai/{model}", "messages": TURNS, "max_tokens": 40, "api_base": url, "api_key": "none"
    }  # fmt: skip

    def too_long() -> str:
        try:
            litellm.completion(**asked | {"max_tokens": 10**6})
        except litellm.ContextWindowExceededError:
            return "ContextWindowExceededError"
        raise AssertionError("a request beyond the context was not refused as one")

    return {
        "chat": lambda: litellm.completion(**asked).choices[0].message.content,
        "stream": lambda: "".join(
            chunk.choices[0].delta.content or "" for chunk in litellm.completion(**asked, stream=True)
        ),
        "too long": too_long,
    }


def langchain_checks(url: str, model: str) -> dict[str, Callable[[], object]]:
    """Return what is asked with LangChain."""
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model=model, base_url=url, api_key="none", max_tokens=80, max_retries=0)
    schema = {"title": "answer", "description": "A colour.", **SCHEMA}
    return {
        "invoke": lambda: chat.invoke(QUESTION).content,
        "stream": lambda: "".join(str(chunk.content) for chunk in chat.stream(QUESTION)),
        "structured output": lambda: chat.with_structured_output(schema, method="json_schema").invoke(QUESTION),
    }


def pydantic_ai_checks(url: str, model: str) -> dict[str, Callable[[], object]]:
    """Return what is asked with pydantic-ai."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    asked = OpenAIChatModel(model, provider=OpenAIProvider(base_url=url, api_key="none"))
    agent = Agent(asked, instructions="Be brief.", model_settings={"max_tokens": 40})
    return {"run": lambda: agent.run_sync(QUESTION).output}


def request_shapes(url: str, model: str) -> dict[str, Callable[[], object]]:
    """Return requests as programs send them that are too large to install beside the others."""
    import httpx

    def chat(**fields: Any) -> Any:
        reply = httpx.post(f"{url}/chat/completions", json={"model": model, "messages": TURNS, **fields}, timeout=600)
        reply.raise_for_status()
        return reply.json()["choices"][0]["message"]["content"]

    def text(**fields: Any) -> Any:
        reply = httpx.post(f"{url}/completions", json={"model": model, **fields}, timeout=600)
        reply.raise_for_status()
        return reply.json()["choices"][0]["text"]

    def streamed(**fields: Any) -> str:
        body = {"model": model, "messages": TURNS, "stream": True, **fields}
        with httpx.stream("POST", f"{url}/chat/completions", json=body, timeout=600) as reply:
            reply.raise_for_status()
            events = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {")]
        assert events[-1]["usage"]["completion_tokens"] > 0
        return "".join(one["delta"].get("content") or "" for event in events for one in event["choices"])

    sampled = {"max_tokens": 40, "temperature": 0.0, "top_p": 0.95, "seed": 0, "stop": None, "stream": False}
    plain = {"n": 1, "frequency_penalty": 0.0, "presence_penalty": 0.0, "timeout": None}
    extra = {"min_p": 0.0, "repetition_penalty": 1.0, "spaces_between_special_tokens": False}
    skills = {**sampled, **plain, **extra}
    return {
        "NeMo-Skills, chat": lambda: chat(**skills, logprobs=False, top_logprobs=None, tools=None),
        "NeMo-Skills, text": lambda: text(**skills, prompt="A colour:", logprobs=None, echo=False, logit_bias=None),
        "Open WebUI, chat": lambda: streamed(stream_options={"include_usage": True}, max_tokens=40, temperature=0.8),
        "Open WebUI, title": lambda: chat(stream=False, max_completion_tokens=40),
    }


CLIENTS = {
    "openai": openai_checks,
    "litellm": litellm_checks,
    "langchain_openai": langchain_checks,
    "pydantic_ai": pydantic_ai_checks,
    "httpx": request_shapes,
}


def main(url: str) -> int:
    """Print a row for each client and way of asking, and return how many failed."""
    import httpx

    model = httpx.get(f"{url}/models").json()["data"][0]["id"]
    failed = 0
    print("| client | asks | got |\n|---|---|---|")
    for name, checks in CLIENTS.items():
        if importlib.util.find_spec(name) is None:
            print(f"| {name} | | not installed |")
            continue
        for what, check in checks(url, model).items():
            try:
                got = json.dumps(check(), ensure_ascii=False)[:60]
            except Exception as error:  # of any client: the table says which
                got, failed = f"FAILED {type(error).__name__}: {error}"[:160], failed + 1
            print(f"| {name} | {what} | {got} |", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1])))
