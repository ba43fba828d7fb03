"""Requests that come, go and stream: seeds, cancellation, limits on thinking, adapters, errors."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tiny import save_tiny_llama
from transformers import LlamaForCausalLM

from nemo_reasoning.data.chat import load_template
from nemo_reasoning.errors import ConfigError, EngineError
from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.inference.request import Completion, Delta, Event, GenerationRequest
from nemo_reasoning.reasoning.messages import Message, Mode
from nemo_reasoning.reasoning.sampling import Sampling

QUESTION = "What is 2 times 21?"
CPU: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


def ask(question: str = QUESTION, *, mode: Mode = "on", max_new_tokens: int = 80, **fields: Any) -> GenerationRequest:
    return GenerationRequest(messages=(Message("user", question),), mode=mode, max_new_tokens=max_new_tokens, **fields)


@pytest.fixture(scope="module")
def engine(taught_llama: Path) -> Iterator[HFEngine]:
    engine = HFEngine(taught_llama, batch_size=8, **CPU)
    yield engine
    engine.close()


def wait_for_end(events: "SimpleQueue[Event]") -> Completion | EngineError:
    while isinstance(event := events.get(timeout=60), Delta):
        pass
    return event


def wait_until_idle(engine: HFEngine) -> None:
    while engine.scheduler.running or engine.scheduler.waiting:
        time.sleep(0.005)


def test_a_stream_says_what_the_completion_holds(engine: HFEngine) -> None:
    *deltas, completion = engine.stream(ask())
    assert isinstance(completion, Completion)
    assert len(deltas) > 20
    assert "".join(delta.reasoning for delta in deltas) == completion.reasoning == "2 * 20 = 40"
    assert "".join(delta.answer for delta in deltas) == completion.answer == "The answer is 42."


def test_what_a_seed_draws_does_not_depend_on_the_batch(engine: HFEngine) -> None:
    requests = [ask("x" * seed, sampling=Sampling(1.5, 0.9), seed=seed, max_new_tokens=20) for seed in range(12)]
    together = engine.generate(requests)
    assert together == [engine.generate([request])[0] for request in requests]
    assert len({completion.text for completion in together}) > 6


def test_a_cancelled_request_frees_its_place_and_is_silent(engine: HFEngine) -> None:
    events: SimpleQueue[Event] = SimpleQueue()
    begun = threading.Event()

    def report(event: Event) -> None:
        begun.set()
        events.put(event)

    generations = [
        engine.submit(ask("z", max_new_tokens=400, sampling=Sampling(1.0), seed=n), report) for n in range(8)
    ]
    assert begun.wait(60)
    for generation in generations:
        generation.cancel()
    assert engine.generate([ask()])[0].answer == "The answer is 42."
    wait_until_idle(engine)
    seen = events.qsize()
    engine.generate([ask()])
    assert events.qsize() == seen


def test_leaving_a_stream_cancels_it(engine: HFEngine) -> None:
    for _ in engine.stream(ask(max_new_tokens=400, min_thinking=300)):
        break
    wait_until_idle(engine)


def test_log_probabilities_come_with_their_tokens(engine: HFEngine) -> None:
    *deltas, completion = engine.stream(ask(logprobs=2))
    assert isinstance(completion, Completion)
    told = [entry for delta in deltas for entry in delta.logprobs]
    assert tuple(told) == completion.logprobs[:-1]
    assert len(completion.logprobs) == completion.completion_tokens
    assert "".join(entry.text for entry in told if entry.part == "answer") == completion.answer
    assert completion.logprobs[-1].part == "end"
    assert all(entry.top[0].logprob == pytest.approx(entry.logprob) for entry in completion.logprobs)
    assert all(len(entry.top) == 2 for entry in completion.logprobs)


def test_a_bare_prompt_is_continued_as_it_stands(engine: HFEngine) -> None:
    turn = f"<|im_start|>system\ndetailed thinking on<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
    asked = GenerationRequest(prompt=f"{turn}<|im_start|>assistant\n", mode="off", max_new_tokens=80)
    [completion] = engine.generate([asked])
    assert completion.text == completion.answer == "<think>\n2 * 20 = 40\n</think>\n\nThe answer is 42."
    assert completion.reasoning_tokens == 0


def test_a_stop_string_ends_the_answer(engine: HFEngine) -> None:
    [completion] = engine.generate([ask(stop=("is", "40"))])
    assert (completion.reasoning, completion.answer) == ("2 * 20 = 40", "The answer ")
    assert completion.finish_reason == "stop"


@pytest.mark.slow
@pytest.mark.parametrize(("budget", "samples"), [(0, 300), (1, 300), (16, 300), (128, 100)])
def test_sampled_answers_keep_their_budget(taught_llama: Path, budget: int, samples: int) -> None:
    engine = HFEngine(taught_llama, batch_size=64, **CPU)
    requests = [
        ask(
            thinking_budget=budget,
            max_new_tokens=2 * budget + 60,
            sampling=Sampling(3.0 if budget > 16 else 1.2),  # hotter: longer, but begins less often
            seed=seed,
            min_thinking=min(budget, 1),
        )
        for seed in range(samples)
    ]
    completions = engine.generate(requests)
    engine.close()
    assert all(completion.reasoning_tokens <= budget for completion in completions)
    assert all(completion.answer for completion in completions)
    assert not any(completion.answer.startswith(("<think>", "</think>")) for completion in completions)
    thought = [completion for completion in completions if completion.text.lstrip().startswith("<think>")]
    assert sum(completion.reasoning_tokens == budget for completion in thought) > samples / 10


def test_min_thinking_makes_the_model_think_on(engine: HFEngine) -> None:
    [short] = engine.generate([ask()])
    [longer] = engine.generate([ask(min_thinking=short.reasoning_tokens + 5, max_new_tokens=300)])
    assert "Wait" in longer.reasoning
    assert longer.reasoning_tokens >= short.reasoning_tokens + 5
    assert longer.answer


@pytest.fixture(scope="module")
def adapters(taught_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the directories of two random adapters of different ranks, layers and scalings."""
    folders = {}
    for seed, (name, options) in enumerate(
        {
            "first": {"r": 4, "target_modules": "all-linear"},
            "second": {"r": 8, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
        }.items()
    ):
        torch.manual_seed(seed)
        config = LoraConfig(lora_alpha=8, init_lora_weights=False, **options)
        folders[name] = tmp_path_factory.mktemp("adapters") / name
        get_peft_model(LlamaForCausalLM.from_pretrained(taught_llama), config).save_pretrained(folders[name])
    return folders


def test_adapters_share_a_batch_and_answer_as_if_alone(taught_llama: Path, adapters: dict[str, Path]) -> None:
    engine = HFEngine(taught_llama, adapters=adapters, **CPU)
    names = [None, "first", "second", "first", None, "second"]
    found = engine.generate([ask(f"{n}", adapter=name, max_new_tokens=16) for n, name in enumerate(names)])
    engine.close()
    for number, name in enumerate(names):
        alone = HFEngine(taught_llama, adapters.get(name or ""), **CPU)
        [expected] = alone.generate([ask(f"{number}", max_new_tokens=16)])
        alone.close()
        assert found[number] == expected
    assert len({completion.text for completion in found}) > 3


def test_an_adapter_that_is_not_loaded_is_refused(engine: HFEngine) -> None:
    with pytest.raises(EngineError, match="adapter='other' is not loaded"):
        engine.generate([ask(adapter="other")])


def test_an_adapter_of_another_model_is_refused(taught_llama: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    config = (adapters["second"] / "adapter_config.json").read_text()
    (tmp_path / "adapter_config.json").write_text(config.replace('"use_dora": false', '"use_dora": true'))
    with pytest.raises(EngineError, match="use_dora"):
        HFEngine(taught_llama, adapters={"x": tmp_path}, **CPU)


def test_an_error_of_the_model_fails_those_it_serves_and_no_others(taught_llama: Path) -> None:
    engine = HFEngine(taught_llama, **CPU)
    layer = engine.model.model.layers[0]
    handle = layer.register_forward_hook(lambda *_: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(EngineError, match="RuntimeError"):
        engine.generate([ask()])
    handle.remove()
    assert engine.generate([ask()])[0].answer == "The answer is 42."
    engine.close()


def test_closing_fails_what_runs_and_what_waits(taught_llama: Path) -> None:
    engine = HFEngine(taught_llama, batch_size=1, **CPU)
    ends = []
    for _ in range(3):
        events: SimpleQueue[Event] = SimpleQueue()
        engine.submit(ask(max_new_tokens=400, min_thinking=380), events.put)
        ends.append(events)
    engine.close()
    assert all(isinstance(wait_for_end(events), EngineError) for events in ends)
    with pytest.raises(EngineError, match="closed"):
        engine.generate([ask()])


def test_a_request_beyond_the_cache_is_refused(taught_llama: Path) -> None:
    engine = HFEngine(taught_llama, cache_gb=100 * 512 / 2**30, **CPU)
    with pytest.raises(EngineError, match="cache_gb"):
        engine.generate([ask(max_new_tokens=80)])
    engine.close()


def test_weights_of_an_adapter_are_read_or_named(taught_llama: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(adapters["first"], tmp_path / "first"))
    weights = folder / "adapter_model.safetensors"
    kept = weights.read_bytes()
    torch.save(load_file(weights), folder / "adapter_model.bin")
    weights.unlink()
    request = ask("1", adapter="first", max_new_tokens=8)
    [found] = HFEngine(taught_llama, adapters={"first": folder}, **CPU).generate([request])
    assert [found] == HFEngine(taught_llama, adapters=adapters, **CPU).generate([request])

    (folder / "adapter_model.bin").unlink()
    for chosen in ({"adapters": {"first": folder}}, {"adapter": folder}):
        with pytest.raises(ConfigError, match=r"has neither adapter_model.safetensors nor adapter_model.bin"):
            HFEngine(taught_llama, **chosen, **CPU)
    weights.write_bytes(kept[:-100])
    with pytest.raises(ConfigError, match=r"adapter_model.safetensors is damaged"):
        HFEngine(taught_llama, folder, **CPU)
    weights.write_bytes(kept)
    with pytest.raises(EngineError, match="load it on the base it is of"):
        HFEngine(save_tiny_llama(tmp_path / "other", head_dim=24), folder, chat_template=load_template("chatml"), **CPU)
