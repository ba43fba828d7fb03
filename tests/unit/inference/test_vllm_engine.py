"""vLLM, in an environment of its own, answers as transformers does.

The environment is `.venv-vllm`, or that of the interpreter in $NEMO_REASONING_VLLM_PYTHON; see docs/serving.md.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import save_tiny_llama
from transformers import LlamaForCausalLM

from nemo_reasoning.data.chat import load_template
from nemo_reasoning.errors import EngineError
from nemo_reasoning.export.tokenizer import strip_generation
from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.inference.request import Completion, GenerationRequest
from nemo_reasoning.inference.vllm.engine import VllmEngine
from nemo_reasoning.inference.vllm.server import VllmServer
from nemo_reasoning.reasoning.messages import Message
from nemo_reasoning.reasoning.sampling import Sampling

PYTHON = Path(os.environ.get("NEMO_REASONING_VLLM_PYTHON", Path(__file__).parents[3] / ".venv-vllm/bin/python"))
QUESTIONS = ["What is the capital of France?", "What is 12 times 7?", "Name three colours.", "Say hello."]
needs_vllm = pytest.mark.skipif(not PYTHON.is_file(), reason=f"there is no vLLM at {PYTHON}")


def ask(question: str = QUESTIONS[0], **fields: Any) -> GenerationRequest:
    return GenerationRequest(messages=(Message("user", question),), **{"mode": "off", "max_new_tokens": 24, **fields})


def test_without_vllm_the_remedy_is_told(smollm2_hf: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="pip install vllm"):
        VllmEngine(smollm2_hf, python=tmp_path / "python", chat_template=load_template("chatml"))


def test_gpus_that_cannot_share_the_weights_are_refused(
    smollm2_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"python": tmp_path / "python", "chat_template": load_template("chatml")}
    with pytest.raises(EngineError, match=r"=2: .* has 9 attention heads and 3 .*; choose one of 1, 3, 9\Z"):
        VllmEngine(smollm2_hf, **options, tensor_parallel_size=2)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\n")
    (tmp_path / "nvidia-smi").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"=3: 1 GPU is visible here; choose at most 1\Z"):
        VllmEngine(smollm2_hf, **options, tensor_parallel_size=3)


FAKE = """
import http.server, sys

class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Healthy).serve_forever()
"""


def reachable(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_server_ends_with_whoever_started_it(tmp_path: Path) -> None:
    module = tmp_path / "fake" / "vllm" / "entrypoints" / "openai" / "api_server.py"
    module.parent.mkdir(parents=True)
    module.write_text(FAKE)
    python, told = tmp_path / "python", tmp_path / "url"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/fake exec {sys.executable} "$@"\n')
    python.chmod(0o700)
    if not (child := os.fork()):
        told.write_text(VllmServer(python, "model", adapters={}, args=[], cache_gb=None).url)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    until, port = time.monotonic() + 10, int(told.read_text().rpartition(":")[2])
    while reachable(port) and time.monotonic() < until:
        time.sleep(0.05)
    assert not reachable(port)


@pytest.fixture(scope="module")
def options(smollm2_hf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.manual_seed(0)
    config = LoraConfig(r=8, lora_alpha=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    folder = tmp_path_factory.mktemp("lora") / "bent"
    get_peft_model(LlamaForCausalLM.from_pretrained(smollm2_hf), config).save_pretrained(folder)
    template = strip_generation(load_template("chatml"))
    return {"model": smollm2_hf, "adapters": {"bent": folder}, "dtype": "float32", "chat_template": template}


@pytest.fixture(scope="module")
def engine(options: dict[str, Any]) -> Iterator[VllmEngine]:
    engine = VllmEngine(**options, python=PYTHON, batch_size=8, context=512, cache_gb=1, args=["--enforce-eager"])
    yield engine
    engine.close()


@needs_vllm
@pytest.mark.slow
def test_answers_are_those_of_transformers(engine: VllmEngine, options: dict[str, Any]) -> None:
    plain = HFEngine(**options, device="cpu", context=512)
    for name in (None, "bent"):  # apart: vLLM 0.32 on a CPU lets an adapter change its neighbours without one
        requests = [ask(question, adapter=name) for question in QUESTIONS]
        assert engine.generate(requests) == plain.generate(requests)
    plain.close()


@needs_vllm
@pytest.mark.slow
def test_processes_that_share_the_weights_answer_as_one(tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path / "model", head_dim=64)
    options: dict[str, Any] = {"dtype": "float32", "context": 256, "chat_template": load_template("chatml")}
    requests = [ask(question) for question in QUESTIONS]
    plain = HFEngine(model, **options, device="cpu")
    shared = VllmEngine(
        model, **options, python=PYTHON, batch_size=4, cache_gb=1, tensor_parallel_size=2, args=["--enforce-eager"]
    )
    assert shared.generate(requests) == plain.generate(requests)
    plain.close()
    shared.close()


@needs_vllm
@pytest.mark.slow
@pytest.mark.parametrize("budget", [0, 1, 16])
def test_budgets_are_exact(engine: VllmEngine, budget: int) -> None:
    requests = [
        ask(
            mode="on",
            thinking_budget=budget,
            min_thinking=min(budget, 1),
            max_new_tokens=120,
            sampling=Sampling(temperature=1.0),
            seed=seed,
        )
        for seed in range(20)
    ]
    completions = engine.generate(requests)
    assert all(completion.reasoning_tokens <= budget for completion in completions)
    assert all(completion.answer for completion in completions)
    if budget:
        assert any(completion.reasoning_tokens == budget for completion in completions)
        assert all(completion.text.count("<think>") == 1 for completion in completions)


@needs_vllm
@pytest.mark.slow
def test_streams_stops_and_log_probabilities(engine: VllmEngine) -> None:
    *deltas, completion = engine.stream(ask(stop=("Paris",), logprobs=2))
    assert isinstance(completion, Completion)
    assert "".join(delta.answer for delta in deltas) == completion.answer == "The capital of France is "
    assert completion.finish_reason == "stop"
    assert all(entry.logprob <= 0 and len(entry.top) >= 2 for entry in completion.logprobs)
    for _ in engine.stream(ask("Tell a long story.", max_new_tokens=400)):
        break
    assert engine.generate([ask()])[0].answer == "The capital of France is Paris."
