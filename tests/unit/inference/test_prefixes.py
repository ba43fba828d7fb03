"""What was read of one request serves those that begin alike, and nobody else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from greedy import PROMPTS, Greedy, run, running

from nemo_reasoning.inference.hf.batch import RunningBatch
from nemo_reasoning.inference.hf.row import Row

LONG = PROMPTS[4]
FORKED = [*LONG[:60], 5, 9]


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """Yield how many tokens the model takes in each pass, as it does."""
    passes: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    try:
        yield passes
    finally:
        hook.remove()


def alone(model: Any, prompt: list[int], limit: int = 24) -> list[int]:
    sequence = Greedy(prompt, limit)
    run(running(model), [sequence])
    return sequence.tokens


def ask(batch: RunningBatch, prompt: list[int], limit: int = 24, adapter: int = -1) -> list[int]:
    sequence = Greedy(prompt, limit)
    batch.join(Row(sequence, adapter))
    with torch.inference_mode():
        while batch.rows:
            batch.step()
    return sequence.tokens


def test_a_later_turn_reads_what_is_new(model: Any) -> None:
    batch = running(model, prefill_tokens=1000)
    first = ask(batch, LONG)
    later = [*LONG, *first, 7, 8, 9]
    with counted(model) as passes:
        assert ask(batch, later) == alone(model, later)
    assert passes[0] == 4  # the last token of the answer was never read
    with counted(model) as passes:
        assert ask(batch, FORKED) == alone(model, FORKED)
    assert passes[0] == 2
    with counted(model) as passes:
        assert ask(batch, LONG) == first
    assert passes[0] == 1


def test_choices_of_one_prompt_read_it_once(model: Any) -> None:
    batch, expected = running(model, prefill_tokens=1000), alone(model, LONG)
    choices = [Greedy(LONG) for _ in range(4)]
    with counted(model) as passes:
        run(batch, choices)
    assert [choice.tokens for choice in choices] == [expected] * 4
    assert passes[:3] == [len(LONG), 1 + 3, 4]


@pytest.mark.parametrize("prefill_tokens", [16, 1000])
def test_a_row_that_runs_lends_what_it_has_read(model: Any, prefill_tokens: int) -> None:
    batch = running(model, prefill_tokens=prefill_tokens)
    sequences = [Greedy(LONG), Greedy(FORKED), Greedy(PROMPTS[0]), Greedy(LONG[:70])]
    with torch.inference_mode(), counted(model) as passes:
        batch.join(Row(sequences[0], -1))
        for sequence in sequences[1:]:
            batch.step()
            batch.join(Row(sequence, -1))
        while batch.rows:
            batch.step()
    assert [each.tokens for each in sequences] == [alone(model, each.prompt) for each in sequences]
    decoded = sum(each.limit - 1 for each in sequences)
    assert sum(passes) - decoded < len(LONG) + len(PROMPTS[0]) + 60  # three that begin alike were read once


def test_another_adapter_reads_for_itself(model: Any) -> None:
    batch = running(model, prefill_tokens=1000)
    ask(batch, LONG, adapter=0)
    for adapter, new in ((1, len(LONG)), (-1, len(LONG)), (0, 1)):
        with counted(model) as passes:
            ask(batch, LONG, adapter=adapter)
        assert passes[0] == new


def test_an_echo_sees_its_whole_prompt(model: Any) -> None:
    seen: list[int] = []

    class Echo:
        def read(self, hidden: torch.Tensor, lm_head: Any) -> None:
            seen.append(len(hidden))

    batch = running(model, prefill_tokens=1000)
    ask(batch, LONG)
    echoing = Greedy(LONG)
    echoing.echo = Echo()  # type: ignore[assignment]
    run(batch, [echoing])
    assert seen == [len(LONG)]


def test_what_is_kept_has_its_share_of_the_memory(model: Any) -> None:
    prompts = [[number, *LONG] for number in range(3, 9)]
    batch = running(model, max_bytes=1600 * running(model)._cache.bytes_per_position)
    for prompt in prompts:
        ask(batch, prompt, limit=2)
    assert [one.tokens[0] for one in batch._prefixes._kept] == [7, 8]
    assert all(len(states) == len(LONG) + 2 for one in batch._prefixes._kept for states in one.states)
    ask(batch, LONG * 16, limit=100)  # 1,536 positions: rows come first
    assert batch._prefixes._kept == []


def test_a_prompt_without_numbers_is_kept_for_nobody(model: Any) -> None:
    weights = model.get_input_embeddings().weight
    kept = weights[77].clone()
    batch, prompt = running(model), [60, 77] * 20
    try:
        with torch.no_grad():
            weights[77] = torch.nan
        run(batch, [bad := Greedy(prompt)])
    finally:
        with torch.no_grad():
            weights[77] = kept
    assert bad.error is not None
    assert ask(batch, prompt) == alone(model, prompt)
