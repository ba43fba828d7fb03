"""Batched decoding against transformers' own, one prompt at a time."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from nemo_reasoning.inference import attention
from nemo_reasoning.inference.decoding import Choose, Job, decode, sampler

PROMPTS = [[5, 9, 40, 7, 100, 3, 77], [60], [8, 8, 30], [120, 121, 122, 90], [33, 44]]


@pytest.fixture(scope="module")
def model(random_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(random_model, attn_implementation=attention.register()).eval()


def reference(folder: Path, *, stop_ids: Collection[int]) -> list[list[int]]:
    """Decode each prompt alone with transformers' generate and plain attention."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    rows = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=list(stop_ids),
            pad_token_id=0,
        )
        rows.append(output[0, len(prompt) :].tolist())
    return rows


def jobs(choose: Choose | None = None) -> list[Job]:
    return [Job(prompt=prompt, max_new_tokens=24, choose=choose) for prompt in PROMPTS]


def test_greedy_equals_transformers_generate(model: Any, random_model: Path) -> None:
    free = decode(model, jobs(), stop_ids=())
    assert free == reference(random_model, stop_ids=[len(PROMPTS) + 10**6])
    assert [len(row) for row in free] == [24] * len(PROMPTS)


def test_rows_leave_when_they_stop(model: Any, random_model: Path) -> None:
    free = decode(model, jobs(), stop_ids=())
    stop_ids = {free[0][3], free[1][10], free[3][0]}
    rows = decode(model, jobs(), stop_ids=stop_ids)
    assert rows == reference(random_model, stop_ids=stop_ids)
    assert len({len(row) for row in rows}) > 1
    assert all(token not in stop_ids for row in rows for token in row[:-1])


def test_every_row_has_its_own_limit(model: Any) -> None:
    free = decode(model, jobs(), stop_ids=())
    limits = [3, 24, 1, 10, 10]
    limited = [
        Job(prompt=prompt, max_new_tokens=limit, choose=None) for prompt, limit in zip(PROMPTS, limits, strict=True)
    ]
    expected = [row[:limit] for row, limit in zip(free, limits, strict=True)]
    assert decode(model, limited, stop_ids=()) == expected


def test_sampling_depends_on_the_seed_alone(model: Any) -> None:
    def sampled(seed: int, prompts: list[list[int]]) -> list[int]:
        rows = [
            Job(prompt=prompt, max_new_tokens=12, choose=sampler(temperature=1.5, top_p=1.0, seed=seed))
            for prompt in prompts
        ]
        return decode(model, rows, stop_ids=())[-1]

    alone = sampled(1, PROMPTS[-1:])
    assert alone == sampled(1, PROMPTS)
    assert alone != sampled(2, PROMPTS)


def test_temperature_zero_is_greedy() -> None:
    assert sampler(temperature=0.0, top_p=0.5, seed=3) is None


@pytest.mark.parametrize(
    ("temperature", "top_p", "shares"),
    [
        (1.0, 1.0, [0.5, 0.3, 0.2]),
        (1.0, 0.75, [0.625, 0.375, 0.0]),  # 0.5 alone falls short of 0.75; 0.5 + 0.3 reaches it
        (1.0, 0.5, [1.0, 0.0, 0.0]),
        (0.5, 1.0, [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38]),
    ],
)
def test_sampler_draws_from_the_nucleus(temperature: float, top_p: float, shares: list[float]) -> None:
    choose = sampler(temperature=temperature, top_p=top_p, seed=0)
    assert choose is not None
    order = [2, 0, 1]
    logits = torch.tensor([0.5, 0.3, 0.2]).log()[order]
    drawn = Counter(order[choose(logits)] for _ in range(4000))
    assert [drawn[token] / 4000 for token in range(3)] == pytest.approx(shares, abs=0.03)
    assert all(drawn[token] == 0 for token, share in enumerate(shares) if share == 0)
