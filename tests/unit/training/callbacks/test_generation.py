"""Generations from the model in training."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import VOCAB, TinyLoop, fit
from transformers import LlamaConfig, LlamaForCausalLM

from nemo_reasoning.training.callbacks.base import Callback
from nemo_reasoning.training.callbacks.generation import (
    SAMPLES_FILE,
    GenerationSamples,
    SamplePrompt,
    excerpt,
    greedy_generate,
)

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    """Return a random model."""
    torch.manual_seed(1)
    config = LlamaConfig(  # type: ignore[no-untyped-call]
        num_hidden_layers=2,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()  # type: ignore[no-any-return, no-untyped-call]


def generate(llama: LlamaForCausalLM, *, eos_ids: set[int], multiple: int = 1) -> list[list[int]]:
    """Continue `PROMPTS` with ours."""
    with torch.no_grad():
        return greedy_generate(
            lambda ids: llama(input_ids=ids).logits,
            prompts=PROMPTS,
            eos_ids=eos_ids,
            max_new_tokens=12,
            device=CPU,
            length_multiple=multiple,
        )


def reference(llama: LlamaForCausalLM, prompt: list[int], eos_id: int) -> list[int]:
    """Continue one prompt with transformers."""
    ids = torch.tensor([prompt])
    output = llama.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=eos_id,
        pad_token_id=0,
    )
    return output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("multiple", [1, 8])
def test_a_batch_of_unequal_prompts_continues_as_transformers_does(llama: LlamaForCausalLM, multiple: int) -> None:
    assert generate(llama, eos_ids=set(), multiple=multiple) == [reference(llama, p, 999) for p in PROMPTS]


def test_a_row_ends_with_its_end_token_while_others_go_on(llama: LlamaForCausalLM) -> None:
    end = generate(llama, eos_ids=set())[0][4]
    ended = generate(llama, eos_ids={end})

    assert ended[0][-1] == end
    assert ended == [reference(llama, prompt, end) for prompt in PROMPTS]


def sampler(folder: Path, *, shown: list[str] | None = None, eos_ids: tuple[int, ...] = ()) -> GenerationSamples:
    """Return a callback that asks two questions every second step."""
    return GenerationSamples(
        prompts=[SamplePrompt("on", "What?", [1, 2]), SamplePrompt("off", "Why?", [3])],
        eos_ids=eos_ids,
        decode=lambda ids: " ".join(map(str, ids)),
        max_new_tokens=4,
        every_n_steps=2,
        path=folder / SAMPLES_FILE,
        show=(shown if shown is not None else []).append,
    )


def lines(folder: Path) -> list[dict[str, object]]:
    """Return what was sampled."""
    return [json.loads(line) for line in (folder / SAMPLES_FILE).read_text().splitlines()]


def test_both_modes_are_sampled_every_n_steps_and_at_the_end(tmp_path: Path) -> None:
    shown: list[str] = []
    fit(tmp_path, [sampler(tmp_path, shown=shown)], max_steps=5)

    assert [(line["step"], line["mode"]) for line in lines(tmp_path)] == [
        (step, mode) for step in (2, 4, 5) for mode in ("on", "off")
    ]
    assert lines(tmp_path)[0] | {"completion": ""} == {
        "step": 2,
        "mode": "on",
        "prompt": "What?",
        "completion": "",
        "completion_tokens": 4,
        "finish_reason": "length",
    }
    assert shown[0].startswith("step 2, thinking on: What? -> ")


class Fp8Shapes(Callback):
    """Notes the shapes of what is generated: a product of Transformer Engine in FP8 divides tokens by 8."""

    position = 0

    def on_model(self, loop: Any) -> None:
        """Look at what the model is given while it does not train."""
        self.lengths: list[int] = []
        loop.model.register_forward_pre_hook(self._look)

    def _look(self, module: Any, arguments: Any) -> None:
        if not torch.is_grad_enabled() and len(arguments[0]) == 2:  # the two prompts
            self.lengths.append(arguments[0].shape[1])


def test_samples_have_shapes_that_fp8_can_multiply(tmp_path: Path) -> None:
    shapes = Fp8Shapes()
    fit(tmp_path, [shapes, sampler(tmp_path)], max_steps=2)

    assert shapes.lengths
    assert all(length % 16 == 0 for length in shapes.lengths)


def test_an_end_token_is_counted_but_not_part_of_the_text(tmp_path: Path) -> None:
    fit(tmp_path, [sampler(tmp_path, eos_ids=tuple(range(VOCAB)))], max_steps=2)

    assert {(line["completion"], line["completion_tokens"], line["finish_reason"]) for line in lines(tmp_path)} == {
        ("", 1, "stop")
    }


def test_training_does_not_notice(tmp_path: Path) -> None:
    watched = fit(tmp_path / "watched", [sampler(tmp_path)], max_steps=6)
    alone = fit(tmp_path / "alone", [], max_steps=6)

    assert watched.losses == alone.losses


def test_a_resumed_run_replaces_later_samples(tmp_path: Path) -> None:
    fit(tmp_path, [sampler(tmp_path)], max_steps=4)
    later = {"step": 6, "completion": "of a killed run"}
    with (tmp_path / SAMPLES_FILE).open("a") as file:
        file.write(json.dumps(later) + "\n")
    fit(tmp_path, [sampler(tmp_path)], max_steps=6)

    assert [line["step"] for line in lines(tmp_path)] == [2, 2, 4, 4, 6, 6]
    assert later not in lines(tmp_path)


def test_a_loop_that_cannot_generate_says_so_once(tmp_path: Path) -> None:
    shown: list[str] = []
    loop = TinyLoop([sampler(tmp_path, shown=shown)], max_steps=4)
    loop.can_generate = False
    loop.run()

    assert len(shown) == 1
    assert "pipeline" in shown[0]
    assert not (tmp_path / SAMPLES_FILE).exists()


def test_an_excerpt_keeps_both_ends() -> None:
    assert excerpt("one\n two") == "one two"
    long = excerpt("a" * 500 + "b" * 500)
    assert long.startswith("aaa")
    assert long.endswith("bbb")
    assert len(long) < 200
