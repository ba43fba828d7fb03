"""A server of OpenAI's protocol, played by the standard library."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any

import pytest

from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference.openai_client import OpenAIEngine, RemoteModel
from nemo_reasoning.inference.request import Delta, GenerationRequest
from nemo_reasoning.reasoning.messages import Message
from nemo_reasoning.reasoning.sampling import Sampling

Answer = tuple[int, dict[str, str], Any]


class Server(ThreadingHTTPServer):
    """Answers by a function of the request's body, and keeps what it was asked."""

    def __init__(self, answer: Callable[[dict[str, Any]], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.asked, self.headers = answer, [], []  # type: ignore[var-annotated]
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_POST(self) -> None:
        assert self.path == "/v1/chat/completions"
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.headers.append(dict(self.headers))
        status, headers, answer = self.server.answer(body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(answer: Callable[[dict[str, Any]], Answer]) -> Iterator[Server]:
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def engine(server: Server, **options: Any) -> OpenAIEngine:
    defaults = {"name": "m", "concurrency": 4, "api_key_variable": "NO_SUCH_KEY"}
    return OpenAIEngine(RemoteModel(url=server.url, **{**defaults, **options}), pause=0.01)


def request(text: str = "What?", **options: Any) -> GenerationRequest:
    return GenerationRequest(**{"messages": (Message("user", text),), "mode": "on", "max_new_tokens": 9, **options})


def said(content: Any, *, finish: str = "stop", **fields: Any) -> Answer:
    usage = {
        "prompt_tokens": 3, "completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 4}
    }  # fmt: skip
    message = {"role": "assistant", "content": content, **fields}
    return 200, {}, {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}


def test_answers_come_in_the_order_of_the_requests() -> None:
    with serving(lambda body: said(body["messages"][-1]["content"].upper())) as server:
        completions = engine(server).generate([request(f"q{number}", mode="off") for number in range(20)])
    assert [completion.answer for completion in completions] == [f"Q{number}" for number in range(20)]
    assert all(completion.well_formed for completion in completions)


def test_ends_are_reported_as_they_come() -> None:
    ends: SimpleQueue[Any] = SimpleQueue()
    with serving(lambda body: said("x") if "good" in body["messages"][-1]["content"] else (400, {}, {})) as server:
        remote = engine(server, concurrency=1)
        for text in ("good", "bad"):
            remote.submit(request(text, mode="off"), ends.put)
        assert ends.get() == Delta("", "x")
        assert ends.get().answer == "x"
        assert isinstance(ends.get(), EngineError)
        remote.close()


def test_a_request_carries_switch_sampling_and_budget() -> None:
    with serving(lambda body: said("x")) as server:
        engine(server).generate([request(thinking_budget=5, sampling=Sampling(0.6, 0.9), seed=3)])
        engine(server).generate([request()])
    assert server.asked[0] == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "detailed thinking on"},
            {"role": "user", "content": "What?"},
        ],
        "max_tokens": 9,
        "temperature": 0.6,
        "top_p": 0.9,
        "seed": 3,
        "nvext": {"max_thinking_tokens": 5},
    }
    assert "nvext" not in server.asked[1]


def test_a_chat_template_with_a_switch_is_asked_by_it() -> None:
    line = Message("system", "detailed thinking off")
    with serving(lambda body: said("x")) as server:
        switched = engine(server, arguments=("enable_thinking",))
        switched.generate([request(mode="on"), request(mode="off", messages=(line, Message("user", "What?")))])
        with pytest.raises(EngineError, match="but mode=on; remove one"):
            switched.generate([request(mode="on", messages=(line, Message("user", "What?")))])
    asked = sorted(server.asked, key=lambda body: str(body["chat_template_kwargs"]))
    assert [body["chat_template_kwargs"] for body in asked] == [{"enable_thinking": False}, {"enable_thinking": True}]
    assert [body["messages"] for body in asked] == [[{"role": "user", "content": "What?"}]] * 2


@pytest.mark.parametrize(
    "answer",
    [
        said("<think>\nhm\n</think>\n\n42"),
        said("42", reasoning="hm"),
        said("42", reasoning_content="hm"),
        said([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "42"}]),
        said([{"type": "text", "text": "4"}, {"type": "text", "text": "2"}], reasoning="hm"),
    ],
)
def test_thinking_is_found_wherever_it_is(answer: Answer) -> None:
    with serving(lambda body: answer) as server:
        [completion] = engine(server).generate([request()])
    assert (completion.reasoning, completion.answer, completion.well_formed) == ("hm", "42", True)
    assert (completion.prompt_tokens, completion.completion_tokens, completion.reasoning_tokens) == (3, 7, 4)


def test_half_a_character_and_a_refusal_are_texts() -> None:
    for answer, text in ((said("4\ud83d2"), "4\ufffd2"), (said(None, refusal="I cannot."), "I cannot.")):
        with serving(lambda body, answer=answer: answer) as server:
            assert engine(server).generate([request(mode="off")])[0].answer == text


def test_a_cut_answer_without_content_is_malformed() -> None:
    with serving(lambda body: said(None, finish="length", reasoning="hm")) as server:
        [completion] = engine(server).generate([request()])
    assert (completion.answer, completion.finish_reason, completion.well_formed) == ("", "length", False)


@pytest.mark.parametrize("counts", [True, False])
def test_a_cut_text_without_tags_is_an_answer_where_the_server_counts_thinking(counts: bool) -> None:
    status, headers, body = said("It may be 4", finish="length", reasoning=None)
    with serving(lambda _: (status, headers, body if counts else {**body, "usage": {}})) as server:
        [completion] = engine(server).generate([request()])
    assert (completion.answer, completion.reasoning) == (("It may be 4", "") if counts else ("", "It may be 4"))


def test_a_busy_server_is_asked_again() -> None:
    answers: list[Answer] = [(429, {"Retry-After": "0"}, {}), (503, {}, {}), said("42")]
    with serving(lambda body: answers.pop(0)) as server:
        [completion] = engine(server).generate([request(mode="off")])
    assert completion.answer == "42"
    assert len(server.asked) == 3


def test_the_key_is_sent_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret")
    with serving(lambda body: said("x")) as server:
        engine(server, api_key_variable="SOME_KEY").generate([request()])
        engine(server).generate([request()])
        monkeypatch.setenv("SOME_KEY", " secret\n")
        engine(server, api_key_variable="SOME_KEY").generate([request()])
    assert [headers.get("Authorization") for headers in server.headers] == ["Bearer secret", None, "Bearer secret"]


@pytest.mark.parametrize("key", ["schl\u00fcssel", "two\nlines", "a b"])
def test_a_key_that_cannot_be_sent_is_refused_by_its_variable(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", key)
    with serving(lambda body: said("x")) as server, pytest.raises(EngineError, match="SOME_KEY.*api_key_variable"):
        engine(server, api_key_variable="SOME_KEY")


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("the model's maximum context length is 50 tokens, but 8 of the prompt and 100 new ones were asked for", [42]),
        ("This model's maximum context length is 50 tokens and your request has 8 input tokens", [42]),
        ("maximum context length is 50 tokens. However, you requested 108 tokens (8 in the messages, 100 in the", [42]),
        ("max_tokens is too large", [50, 25]),
    ],
)
def test_a_limit_is_lowered_to_the_servers_context(message: str, asked: list[int]) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        return said("x") if body["max_tokens"] <= 42 else (400, {}, {"error": {"message": message}})

    with serving(answer) as server:
        [completion] = engine(server).generate([request(max_new_tokens=100, mode="off")])
        assert [body["max_tokens"] for body in server.asked] == [100, *asked]
        assert completion.lowered_to == asked[-1]
        assert engine(server).generate([request(mode="off")])[0].lowered_to is None


@pytest.mark.parametrize(
    ("status", "settings"),
    [(401, ["NO_SUCH_KEY", "api_key_variable"]), (404, ["model_name=m", "/v1"]), (400, ["model_name"])],
)
def test_a_refusal_names_the_setting_to_change(status: int, settings: list[str]) -> None:
    with serving(lambda body: (status, {}, {"error": "no"})) as server, pytest.raises(EngineError) as refusal:
        engine(server).generate([request()])
    assert all(setting in str(refusal.value) for setting in settings)


def test_what_cannot_be_served_is_said() -> None:
    with serving(lambda body: (400, {}, {"error": "no model m"})) as server:
        with pytest.raises(EngineError, match="answered 400.*no model m"):
            engine(server).generate([request()])
        assert len(server.asked) == 1
    with pytest.raises(EngineError, match="cannot be reached"):
        engine(server).generate([request()])
    with serving(lambda body: (200, {}, {"hello": 1})) as server, pytest.raises(EngineError, match="is no chat"):
        engine(server).generate([request()])
    broken = (200, {}, {"error": {"message": "overloaded"}})
    with serving(lambda body: broken) as server, pytest.raises(EngineError, match="answered 200: overloaded"):
        engine(server).generate([request()])
    with pytest.raises(EngineError, match="url=http://.::1"):
        OpenAIEngine(RemoteModel(url="http://[::1/v1", name="m", concurrency=1, api_key_variable="NO_SUCH_KEY"))
    with pytest.raises(EngineError, match="concurrency=0"):
        engine(server, concurrency=0)


@pytest.mark.parametrize(
    ("content", "usage", "fields", "broken"),
    [
        ("hm\n</think>\n\n4", {}, {"mode": "off"}, "mode=off"),
        ("4", {}, {"mode": "off"}, None),
        ("<think>hm</think>4", {"reasoning_tokens": 9}, {"thinking_budget": 5}, "wrote 9 tokens"),
        ("<think>hm</think>4", {"reasoning_tokens": 5}, {"thinking_budget": 5}, None),
        ("<think>hm</think>4", {}, {"thinking_budget": 5}, "does not say"),
        ("<think>hm", {"reasoning_tokens": 1}, {}, "ended within the thinking"),
    ],
)
def test_what_a_server_does_not_keep_is_said(
    content: str, usage: dict[str, int], fields: dict[str, Any], broken: str | None
) -> None:
    reply = {
        "choices": [{"message": {"content": content}, "finish_reason": "stop"}],
        "usage": {"completion_tokens_details": usage},
    }
    with serving(lambda body: (200, {}, reply)) as server:
        [completion] = engine(server).generate([request("x", **fields)])
    if broken is None:
        assert completion.not_enforced == ()
    else:
        assert broken in completion.not_enforced[0]
