"""The running batch against transformers' own generate, one prompt at a time."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from greedy import PROMPTS, Greedy, run, running
from transformers import AutoModelForCausalLM

from nemo_reasoning.errors import GenerationError
from nemo_reasoning.inference.hf.row import Row


@pytest.fixture(scope="module")
def reference(random_model: Path) -> list[list[int]]:
    """Decode each prompt alone with transformers' generate and plain attention."""
    model = AutoModelForCausalLM.from_pretrained(random_model, attn_implementation="eager").eval()
    rows = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=10**6,
            pad_token_id=0,
        )
        rows.append(output[0, len(prompt) :].tolist())
    return rows


@pytest.mark.parametrize("prefill_tokens", [4, 16, 1000])
def test_greedy_equals_transformers_generate(model: Any, reference: list[list[int]], prefill_tokens: int) -> None:
    sequences = [Greedy(prompt) for prompt in PROMPTS]
    run(running(model, prefill_tokens=prefill_tokens), sequences)
    assert [sequence.tokens for sequence in sequences] == reference


@pytest.mark.parametrize("seed", range(4))
def test_rows_join_and_leave_at_any_time(model: Any, reference: list[list[int]], seed: int) -> None:
    chance = random.Random(seed)
    numbers = [chance.randrange(len(PROMPTS)) for _ in range(25)]
    limits = [chance.randint(1, 24) for _ in numbers]
    sequences = [Greedy(PROMPTS[number], limit) for number, limit in zip(numbers, limits, strict=True)]
    run(running(model, max_rows=3), sequences, arrivals=chance)
    expected = [reference[number][:limit] for number, limit in zip(numbers, limits, strict=True)]
    assert [sequence.tokens for sequence in sequences] == expected


def test_rows_leave_when_they_stop(model: Any, reference: list[list[int]]) -> None:
    stop_ids = {reference[0][3], reference[1][10], reference[3][0]}
    sequences = [Greedy(prompt, stop_ids=stop_ids) for prompt in PROMPTS]
    run(running(model), sequences)
    lengths = [next((i + 1 for i, token in enumerate(row) if token in stop_ids), 24) for row in reference]
    assert [sequence.tokens for sequence in sequences] == [row[:n] for row, n in zip(reference, lengths, strict=True)]
    assert len(set(lengths)) > 2


def test_leaving_in_the_middle_of_anything_disturbs_nobody(model: Any, reference: list[list[int]]) -> None:
    sequences = [Greedy(prompt) for prompt in PROMPTS]
    rows = [Row(sequence, -1) for sequence in sequences]
    batch = running(model, prefill_tokens=8)
    for row in rows:
        batch.join(row)
    with torch.inference_mode():
        for gone in (4, 0, 5):  # one whose prompt is being read, one that is decoded, one that may be either
            batch.step()
            batch.leave(rows[gone])
        while batch.rows:
            batch.step()
    assert [sequences[number].tokens for number in (1, 2, 3)] == [reference[number] for number in (1, 2, 3)]


def test_a_spare_row_disturbs_no_prompt_that_is_half_read(model: Any, reference: list[list[int]]) -> None:
    batch = running(model, prefill_tokens=8)
    batch._least_rows = 2  # as in bfloat16 on a CPU
    sequences = [Greedy(PROMPTS[0]), Greedy(PROMPTS[4])]
    with torch.inference_mode():
        batch.join(Row(sequences[0], -1))
        batch.step()
        batch.join(Row(sequences[1], -1))
        while batch.rows:
            batch.step()
    assert [sequence.tokens for sequence in sequences] == [reference[0], reference[4]]


def test_rows_may_leave_before_their_first_step(model: Any, reference: list[list[int]]) -> None:
    sequences = [Greedy(prompt) for prompt in PROMPTS[:4]]
    rows = [Row(sequence, -1) for sequence in sequences]
    batch = running(model)
    with torch.inference_mode():
        batch.join(rows[0])
        batch.step()
        for row in rows[1:]:
            batch.join(row)
        batch.leave(rows[1])
        batch.leave(rows[0])
        while batch.rows:
            batch.step()
    assert [sequence.tokens for sequence in sequences[2:]] == reference[2:4]


def test_tokens_may_be_taken_back(model: Any, reference: list[list[int]]) -> None:
    class Doubting(Greedy):
        doubts = 3

        def advance(self, logits: torch.Tensor, likeliest: int) -> bool:
            if self.doubts and len(self.tokens) == 10:
                self.doubts -= 1
                del self.tokens[6:]
                likeliest = reference[0][6]
                self.tokens.append(likeliest)
                return False
            return super().advance(logits, likeliest)

    sequences = [Doubting(PROMPTS[0]), Greedy(PROMPTS[3])]
    run(running(model), sequences)
    assert [sequence.tokens for sequence in sequences] == [reference[0], reference[3]]


class Failing(Greedy):
    """Fails of itself at a token, as a form or a draw may."""

    def __init__(self, prompt: list[int], at: int) -> None:
        super().__init__(prompt)
        self._at = at

    def advance(self, logits: torch.Tensor, likeliest: int) -> bool:
        if len(self.tokens) == self._at:
            raise ZeroDivisionError("of this row")
        return super().advance(logits, likeliest)


@pytest.mark.parametrize("at", [0, 5])
def test_a_row_that_fails_leaves_the_others_alone(model: Any, reference: list[list[int]], at: int) -> None:
    good = [Greedy(prompt) for prompt in PROMPTS]
    bad = [Failing(PROMPTS[0], at), Failing(PROMPTS[4], at)]
    run(running(model), [bad[0], *good, bad[1]])
    assert [sequence.tokens for sequence in good] == reference
    assert all(isinstance(one.error, GenerationError) and "of this row" in str(one.error) for one in bad)


def test_a_prompt_that_cannot_be_read_fails_alone(model: Any, reference: list[list[int]]) -> None:
    bad, good = Greedy([5, 10**6]), [Greedy(PROMPTS[0]), Greedy(PROMPTS[3])]
    batch = running(model, prefill_tokens=4)
    batch.join(Row(good[0], -1))
    with torch.inference_mode():
        while len(good[0].tokens) < 2:
            batch.step()
        for sequence in (bad, good[1]):
            batch.join(Row(sequence, -1))
        while batch.rows:
            batch.step()
    assert "generation failed" in str(bad.error)
    assert [sequence.tokens for sequence in good] == [reference[0], reference[3]]


def test_numbers_that_are_none_fail_their_row_and_nobody_after_it(model: Any, reference: list[list[int]]) -> None:
    weights = model.get_input_embeddings().weight
    kept = weights[77].clone()
    bad, good = Greedy([60, 77] * 20), [Greedy(PROMPTS[number]) for number in (1, 2, 3)]
    batch = running(model)
    try:
        with torch.no_grad():
            weights[77] = torch.nan
        run(batch, [bad])
        run(batch, good)
    finally:
        with torch.no_grad():
            weights[77] = kept
    assert "no finite numbers" in str(bad.error)
    assert "dtype=float32" in str(bad.error)
    assert bad.tokens == []
    assert [sequence.tokens for sequence in good] == reference[1:4]


def test_a_cache_that_found_no_memory_is_used_anew(
    model: Any, reference: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = running(model)
    batch.join(Row(Greedy(PROMPTS[0]), -1))
    zeros, made = torch.zeros, []

    def scarce(*size: int, **options: Any) -> torch.Tensor:
        made.append(size)
        if len(made) == 2:
            raise MemoryError
        return zeros(*size, **options)

    with torch.inference_mode():
        monkeypatch.setattr(torch, "zeros", scarce)
        with pytest.raises(MemoryError):
            batch.step()
    batch.clear()
    sequences = [Greedy(prompt) for prompt in PROMPTS]
    run(batch, sequences)
    assert [sequence.tokens for sequence in sequences] == reference


def test_the_cache_stays_within_its_memory(model: Any, reference: list[list[int]]) -> None:
    most = 8 * 256  # positions: eight rows of 256, or two of 768, but not eight of 768
    batch = running(model, max_bytes=most * running(model)._cache.bytes_per_position)
    prompt = PROMPTS[0] * 81
    alone = Greedy(prompt, limit=600 - len(prompt))
    run(running(model), [alone])
    for _ in range(2):  # several short rows, a long one beside one of them, and several again
        short = [Greedy(prompt, limit=4) for prompt in PROMPTS]
        staying, long = Greedy(PROMPTS[0]), Greedy(prompt, limit=alone.limit)
        run(batch, [*short, staying, long])
        assert [sequence.tokens for sequence in short] == [row[:4] for row in reference]
        assert (staying.tokens, long.tokens) == (reference[0], alone.tokens)
        assert batch._cache._rows * batch._cache._length <= most


def test_a_cache_that_trades_length_for_rows_keeps_what_they_hold(model: Any, reference: list[list[int]]) -> None:
    batch = running(model, max_bytes=3 * 600 * running(model)._cache.bytes_per_position)
    alone, long = (Greedy(PROMPTS[0] * 81, limit=20) for _ in range(2))
    late = [Greedy(PROMPTS[3]), Greedy(PROMPTS[1])]
    run(running(model), [alone])
    batch.join(Row(long, -1))
    with torch.inference_mode():
        while not long.tokens:
            batch.step()
        for sequence in late:
            assert batch.fits(Row(sequence, -1))
            batch.join(Row(sequence, -1))
        while batch.rows:
            batch.step()
    assert [sequence.tokens for sequence in (long, *late)] == [alone.tokens, reference[3], reference[1]]


def test_memory_bounds_the_rows(model: Any, reference: list[list[int]]) -> None:
    batch = running(model)
    position = batch._cache.bytes_per_position
    assert position == 2 * 2 * 2 * 16 * 4  # keys and values, layers, groups, head size, bytes
    longest = len(PROMPTS[4]) + 24
    tight = running(model, max_bytes=2 * longest * position)
    assert tight.fits_alone(2 * longest)
    assert not tight.fits_alone(2 * longest + 1)
    most = 0

    class Watching(Greedy):
        def advance(self, logits: torch.Tensor, likeliest: int) -> bool:
            nonlocal most
            most = max(most, len(tight.rows))
            return super().advance(logits, likeliest)

    sequences = [Watching(prompt) for prompt in (PROMPTS[4], PROMPTS[0], PROMPTS[3])]
    run(tight, sequences)
    assert most == 2
    assert [sequence.tokens for sequence in sequences] == [reference[4], reference[0], reference[3]]
