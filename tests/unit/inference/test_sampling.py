"""What samplers draw."""

from collections import Counter

import pytest
import torch

from nemo_reasoning.inference.hf.sampling import Sampler, logprobs_of
from nemo_reasoning.reasoning.sampling import Sampling


@pytest.mark.parametrize(
    ("temperature", "top_p", "shares"),
    [
        (1.0, 1.0, [0.5, 0.3, 0.2]),
        (1.0, 0.75, [0.625, 0.375, 0.0]),  # 0.5 alone falls short of 0.75; 0.5 + 0.3 reaches it
        (1.0, 0.5, [1.0, 0.0, 0.0]),
        (0.5, 1.0, [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38]),
    ],
)
def test_the_sampler_draws_from_the_nucleus(temperature: float, top_p: float, shares: list[float]) -> None:
    sampler = Sampler(Sampling(temperature, top_p), seed=0)
    order = [2, 0, 1]
    logits = torch.tensor([0.5, 0.3, 0.2]).log()[order]
    drawn = Counter(order[sampler.draw(logits, 0)] for _ in range(4000))
    assert [drawn[token] / 4000 for token in range(3)] == pytest.approx(shares, abs=0.03)
    assert all(drawn[token] == 0 for token, share in enumerate(shares) if share == 0)


def test_a_nucleus_wider_than_the_likeliest_tokens_is_drawn_from_whole() -> None:
    sampler = Sampler(Sampling(1.0, 0.9), seed=0)
    logits = torch.zeros(1000)
    logits[:100] = -9.0
    drawn = [sampler.draw(logits, 0) for _ in range(3000)]
    assert min(drawn) >= 100
    assert len(set(drawn)) > 700
    assert len(set(drawn)) <= 811  # 90 % of 900 equal ones, one more for rounding


def test_draws_follow_the_seed() -> None:
    logits = torch.zeros(50)
    first, same, other = (
        [sampler.draw(logits, 0) for _ in range(20)]
        for sampler in (Sampler(Sampling(1.0), seed=seed) for seed in (5, 5, -6))
    )
    assert first == same
    assert first != other


@pytest.mark.parametrize(
    ("sampling", "shares"),
    [
        (Sampling(1.0, top_k=2), [0.625, 0.375, 0.0]),
        (Sampling(1.0, top_k=1), [1.0, 0.0, 0.0]),
        (Sampling(1.0, top_k=9), [0.5, 0.3, 0.2]),
        (Sampling(1.0, min_p=0.5), [0.625, 0.375, 0.0]),  # 0.2 is less than half of 0.5
        (Sampling(1.0, top_p=0.6, top_k=2), [1.0, 0.0, 0.0]),  # of the two likeliest, 0.625 reaches it alone
    ],
)
def test_few_tokens_remain(sampling: Sampling, shares: list[float]) -> None:
    sampler = Sampler(sampling, seed=0)
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    drawn = Counter(sampler.draw(logits, 0) for _ in range(4000))
    assert [drawn[token] / 4000 for token in range(3)] == pytest.approx(shares, abs=0.03)


def test_min_p_alone_searches_all_tokens_that_could_be_drawn() -> None:
    sampler = Sampler(Sampling(1.0, min_p=0.5), seed=0)
    logits = torch.zeros(1000)
    logits[:100] = -9.0
    drawn = {sampler.draw(logits, 0) for _ in range(3000)}
    assert min(drawn) >= 100
    assert len(drawn) > 700


def test_penalties_lower_what_was_written() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0, 0.5])
    repeated = Sampler(Sampling(repetition_penalty=2.0), seed=0, prompt=[1]).penalize(logits, [0, 0])
    assert repeated.tolist() == [1.0, -4.0, 1.0, 0.5]
    counted = Sampler(Sampling(frequency_penalty=0.5, presence_penalty=0.25), seed=0, prompt=[1]).penalize(
        logits, [0, 0, 2]
    )
    assert counted.tolist() == [0.75, -2.0, 0.25, 0.5]


def test_masked_tokens_are_never_drawn() -> None:
    sampler = Sampler(Sampling(2.0), seed=0)
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, -torch.inf])
    assert {sampler.draw(logits, 0) for _ in range(50)} == {1}


def test_log_probabilities_are_those_of_the_softmax() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0, -torch.inf])
    chosen, top = logprobs_of(logits, 2, top=2)
    expected = logits.log_softmax(-1)
    assert chosen == pytest.approx(float(expected[2]))
    assert top == [(1, pytest.approx(float(expected[1]))), (2, pytest.approx(float(expected[2])))]
    assert logprobs_of(logits, 3, top=0) == (-9999.0, [])
    assert logprobs_of(logits, 3, top=4)[1][-1] == (3, -9999.0)  # JSON holds no infinity
