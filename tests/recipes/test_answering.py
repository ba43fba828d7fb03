"""recipes/generate.py and recipes/serve.py, as a user runs them, with a tiny random model."""

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from launch import ROOT, command, environment, run

SMALL = ["template=chatml", "engine.dtype=float32", "engine.device=cpu"]


def test_generate_answers_a_prompt(tiny_llama: Path) -> None:
    told = run("generate", f"checkpoint={tiny_llama}", *SMALL, "prompt=Hi", "max_new_tokens=40", "budget=3")
    assert "tokens/s" in told


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prompt=Hi", "budget=-1"], r"ConfigError:\s+- budget=-1"),
        (["prompt=Hi", "reasoning=maybe"], r"ConfigError:\s+- reasoning=maybe.*on, off"),
        (["input=nowhere.jsonl"], "DataError: input=nowhere.jsonl"),
        (["prompt=Hi", "engine=vllm", "engine.vllm_python=/nowhere/python"], "EngineError: .*pip install vllm"),
    ],
)
def test_generate_says_what_is_wrong(tiny_llama: Path, overrides: list[str], message: str) -> None:
    told = run("generate", f"checkpoint={tiny_llama}", *SMALL, *overrides, succeeds=False)
    assert "Traceback" not in told
    assert re.search(message, told), told


@contextmanager
def serving(*overrides: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        command("serve", f"port={port}", *SMALL, *overrides),
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None and not _ready(f"http://127.0.0.1:{port}"):
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_serve_answers_and_stops_when_told(tiny_llama: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("secret\n")
    with serving(f"checkpoint={tiny_llama}", "name=small", f"api_key_file={keys}") as (url, process):
        body = {"model": "small", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
        assert httpx.post(f"{url}/v1/chat/completions", json=body).status_code == 401
        headers = {"Authorization": "Bearer secret"}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60).json()
        assert answer["usage"]["completion_tokens"] == 5
        assert "<title>Reasoning chat</title>" in httpx.get(url).text
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines if line.get("path") == "/v1/chat/completions"] == [401, 200]
    assert process.returncode in (0, 128 + signal.SIGTERM)  # uvicorn hands the signal on when all is done


@pytest.mark.slow
def test_serve_says_what_is_wrong(tmp_path: Path) -> None:
    assert "ModelSourceError" in run("serve", f"checkpoint={tmp_path}", succeeds=False)
    assert "api_key_file" in run("serve", f"checkpoint={tmp_path}", "api_key_file=none.txt", succeeds=False)
