"""Clients that leave, queues that are full, time that runs out, the log, the metrics, and the end."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import pytest
from live import ANSWER, MODEL, QUESTION, TRACE, Live, wait_for

from nemo_reasoning.errors import ConfigError
from nemo_reasoning.serving.server import check_port

Serve = Callable[..., AbstractContextManager[Live]]
CHAT = "/v1/chat/completions"
LONG: dict[str, Any] = {  # about four hundred tokens
    "model": MODEL,
    "messages": [{"role": "user", "content": QUESTION}],
    "max_tokens": 430,
    "min_thinking_tokens": 300,
    "temperature": 1.0,
    "seed": 0,
}
SHORT: dict[str, Any] = {"model": MODEL, "messages": LONG["messages"]}


@contextmanager
def streaming(live: Live, body: dict[str, Any]) -> Iterator[Iterator[str]]:
    """Yield the lines of a stream, the first of them having come."""
    with httpx.stream("POST", live.url + CHAT, json=body | {"stream": True}, timeout=60) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield response.iter_lines()


def ask(live: Live, body: dict[str, Any] = SHORT, **options: Any) -> httpx.Response:
    return httpx.post(live.url + CHAT, json=body, timeout=60, **options)


def test_a_client_that_leaves_a_stream_frees_its_place(live: Live) -> None:
    before = live.metric("unfinished_total", model=MODEL)
    for _ in range(5):
        with streaming(live, LONG) as lines:
            assert next(lines).startswith("data: {")
    live.wait_until_idle()
    wait_for(lambda: live.metric("unfinished_total", model=MODEL) == before + 5)
    assert ask(live).json()["choices"][0]["message"]["content"] == ANSWER


def test_a_client_that_leaves_before_the_answer_frees_its_place(live: Live) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(live.url + CHAT, json=LONG | {"n": 8}, timeout=0.05)
    live.wait_until_idle()


def test_more_than_there_is_place_for_is_told_to_come_again(serve: Serve) -> None:
    with serve(capacity=3, batch_size=2) as live:
        with streaming(live, LONG | {"n": 3}) as lines:
            next(lines)
            full = ask(live)
            assert full.status_code == 429
            assert full.headers["Retry-After"] == "7"
            assert "all 3 places are taken; ask again in 7 s" in full.json()["error"]["message"]
            assert full.json()["error"]["type"] == "rate_limit_error"
        live.wait_until_idle()
        assert ask(live).status_code == 200
        never = ask(live, SHORT | {"n": 4})
        assert (never.status_code, never.json()["error"]["param"]) == (400, "n")


def test_what_takes_too_long_is_ended(serve: Serve) -> None:
    with serve(timeout=0.05) as live:
        late = ask(live, LONG | {"n": 8})
        assert late.status_code == 504
        assert "no end within 0.05 s" in late.json()["error"]["message"]
        with streaming(live, LONG | {"n": 8}) as lines:
            events = [line for line in lines if line]
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "timeout"
        live.wait_until_idle()


def test_a_silent_stream_shows_that_it_is_alive(serve: Serve) -> None:
    with (
        serve(heartbeat=0.01, batch_size=1) as live,
        streaming(live, LONG) as first,
        streaming(live, SHORT) as second,
    ):
        assert next(first)
        lines = list(second)
        assert ": still here" in lines
        assert lines[-2:] == ["data: [DONE]", ""]


def test_clients_at_the_same_time_get_their_own_answers(live: Live) -> None:
    def body(number: int) -> dict[str, Any]:
        return SHORT | {"messages": [{"role": "user", "content": "x" * number}], "max_tokens": 24}

    alone = [ask(live, body(number)).json()["choices"] for number in range(16)]
    found: dict[int, Any] = {}

    def one(number: int) -> None:
        found[number] = ask(live, body(number)).json()["choices"]

    threads = [threading.Thread(target=one, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(16)] == alone


def test_health_and_metrics(live: Live) -> None:
    assert httpx.get(live.url + "/health").json() == {"status": "ok"}
    assert httpx.get(live.url + "/ready").json() == {"status": "ready"}
    labels = {"path": CHAT, "status": "200"}
    answered = live.metric("requests_total", **labels)
    written = live.metric("tokens_total", model=MODEL, kind="completion")
    usage = ask(live).json()["usage"]
    wait_for(lambda: live.metric("requests_total", **labels) == answered + 1)
    text = httpx.get(live.url + "/metrics").text
    assert live.metric("tokens_total", model=MODEL, kind="completion") == written + usage["completion_tokens"]
    assert live.metric("tokens_total", model=MODEL, kind="reasoning") > 0
    assert live.metric("first_token_seconds_count", model=MODEL) > 0
    assert f'nemo_reasoning_requests_total{{path="{CHAT}",status="200"}}' in text
    assert "nemo_reasoning_waiting 0.0" in text
    httpx.get(live.url + "/made/up")
    wait_for(lambda: live.metric("requests_total", path="other", status="404") > 0)


@pytest.mark.parametrize("log_prompts", [False, True])
def test_the_log_is_json_without_prompts_unless_wanted(
    serve: Serve, caplog: pytest.LogCaptureFixture, log_prompts: bool
) -> None:
    with serve(log_prompts=log_prompts) as live, caplog.at_level(logging.INFO, "nemo_reasoning.serving"):
        response = ask(live)
        wait_for(lambda: bool(caplog.records))
    line = json.loads(caplog.records[0].getMessage())
    assert line["request"] == response.headers["X-Request-ID"]
    assert line["status"] == 200
    assert line["path"] == CHAT
    assert line["mode"] == "on"
    assert line["finish_reason"] == ["stop"]
    assert line["reasoning_tokens"] == len(f"\n{TRACE}\n")
    assert 0 < line["first_token_s"] < line["seconds"]
    assert (QUESTION in caplog.text) == log_prompts
    assert ANSWER not in caplog.text


def test_pages_of_others_may_ask_only_if_they_are_let(live: Live, serve: Serve) -> None:
    asking = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    asked = httpx.options(live.url + CHAT, headers=asking)
    assert asked.status_code == 405
    assert "access-control-allow-origin" not in asked.headers
    with serve(cors_origins=["https://example.org"], api_keys=["key"]) as open_live:
        allowed = httpx.options(open_live.url + CHAT, headers=asking)
        assert allowed.headers["access-control-allow-origin"] == "https://example.org"
        other = httpx.options(open_live.url + CHAT, headers=asking | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_stopping_lets_what_runs_finish(serve: Serve) -> None:
    with serve() as live:
        with streaming(live, LONG) as lines:
            next(lines)
            live.server.should_exit = True
            wait_for(lambda: live.admission.draining)
            told = list(lines)
        assert told[-2:] == ["data: [DONE]", ""]
        with pytest.raises(httpx.ConnectError):
            httpx.get(live.url + "/ready")


def test_stopping_fails_what_runs_too_long(serve: Serve) -> None:
    with serve(grace_seconds=0.0) as live:
        with streaming(live, LONG | {"n": 8}) as lines:
            next(lines)
            live.server.should_exit = True
            events = [line for line in lines if line]
        error = json.loads(events[-1].removeprefix("data: "))["error"]
        assert error["code"] == "stopping"
        assert error["message"].endswith("ask again")


def test_a_service_that_stops_takes_no_more(live: Live) -> None:
    live.admission.draining = True
    try:
        assert httpx.get(live.url + "/ready").status_code == 503
        refused = ask(live)
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "7"
        assert refused.json()["error"]["code"] == "stopping"
    finally:
        live.admission.draining = False


def test_what_nobody_foresaw_is_logged_as_the_services_fault(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as live, caplog.at_level(logging.INFO, "nemo_reasoning.serving"):
        monkeypatch.setattr(live.admission, "models", None)
        failed = ask(live)
        wait_for(lambda: live.metric("requests_total", path=CHAT, status="500") == 1)
    assert failed.status_code == 500
    assert failed.headers["X-Request-ID"] in failed.json()["error"]["message"]
    [line] = [json.loads(record.getMessage()) for record in caplog.records if record.name == "nemo_reasoning.serving"]
    assert (line["request"], line["status"]) == (failed.headers["X-Request-ID"], 500)


def test_an_engine_that_fails_is_the_services_fault(serve: Serve) -> None:
    with serve() as live:
        handle = live.engine.model.model.layers[0].register_forward_hook(lambda *_: 1 / 0)
        failed = ask(live)
        assert failed.status_code == 500
        assert failed.json()["error"]["message"] == "generation failed: ZeroDivisionError: division by zero"
        handle.remove()
        assert ask(live).status_code == 200


def test_a_service_whose_engine_is_gone_is_not_healthy(serve: Serve) -> None:
    with serve() as live:
        live.engine.close()
        assert httpx.get(live.url + "/health").status_code == 503
        assert httpx.get(live.url + "/ready").status_code == 503
        assert ask(live).json()["error"]["code"] == "stopping"


def test_a_port_that_is_taken_is_refused_before_the_model_is_loaded(live: Live) -> None:
    port = int(live.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"port={port}: Address already in use"):
        check_port("127.0.0.1", port)
    check_port("127.0.0.1", 0)
