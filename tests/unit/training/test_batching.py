"""Which rows each step takes: all of them, once a pass, whatever the step, the replicas and the restarts."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_reasoning.errors import ConfigError
from nemo_reasoning.models.flops import BatchCounts
from nemo_reasoning.training.batching import PADDING_ROW, BatchPlan, PackedPlan, PlannedBatches


@dataclass(frozen=True)
class Case:
    """Arguments of a plan."""

    lengths: list[int]
    micro_batch_size: int
    replicas: int
    accumulation: int
    pad_to: int
    seed: int | None
    repeat: bool = True

    @property
    def global_batch_size(self) -> int:
        return self.micro_batch_size * self.replicas * self.accumulation

    def plan(self) -> BatchPlan:
        lengths = np.asarray(self.lengths, dtype=np.int64)
        return BatchPlan(
            lengths=lengths,
            supervised=lengths // 2,
            micro_batch_size=self.micro_batch_size,
            global_batch_size=self.global_batch_size,
            data_parallel_size=self.replicas,
            pad_to=self.pad_to,
            seed=self.seed,
            repeat=self.repeat,
        )


def cases(seeds: st.SearchStrategy[int | None], *, repeat: bool) -> st.SearchStrategy[Case]:
    few = st.integers(1, 3)
    lengths = st.lists(st.integers(1, 30), min_size=1, max_size=40)
    return st.builds(Case, lengths, few, few, few, st.integers(1, 16), seeds, st.just(repeat))


SHUFFLED, CURRICULUM = cases(st.integers(0, 5), repeat=True), cases(st.none(), repeat=True)
TRAINING, VALIDATION = SHUFFLED | CURRICULUM, cases(st.none(), repeat=False)
FIXED = Case([7, 3, 9, 30, 2, 11, 5, 8, 1, 4], 2, 2, 2, pad_to=8, seed=1)


def drawn(plan: BatchPlan, steps: int) -> list[int]:
    """Return the rows of the first steps in the order they are drawn."""
    return np.concatenate([plan.rows(step) for step in range(steps)]).tolist()


@pytest.mark.smoke
@given(case=TRAINING)
def test_every_row_occurs_once_in_every_pass(case: Case) -> None:
    plan, rows = case.plan(), len(case.lengths)
    numbers = drawn(plan, steps=3 * plan.steps_per_pass)
    for epoch in range(len(numbers) // rows):
        assert sorted(numbers[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


@given(case=CURRICULUM)
def test_a_curriculum_is_trained_in_its_order_in_every_pass(case: Case) -> None:
    rows = len(case.lengths)
    numbers = drawn(case.plan(), steps=2 * case.plan().steps_per_pass)
    assert numbers == [place % rows for place in range(len(numbers))]


def test_passes_and_seeds_are_shuffled_differently() -> None:
    one, other = (Case([1] * 50, 5, 1, 2, pad_to=1, seed=seed).plan() for seed in (0, 1))
    passes = [tuple(drawn(one, 20)[start : start + 50]) for start in range(0, 200, 50)]
    assert len({*passes, tuple(drawn(other, 5)), tuple(range(50))}) == len(passes) + 2


@given(case=TRAINING, steps=st.lists(st.integers(0, 200), max_size=6))
def test_a_batch_depends_on_nothing_but_its_step(case: Case, steps: list[int]) -> None:
    once = {step: np.array(case.plan().deal(step)).tolist() for step in steps}
    plan = case.plan()
    assert {step: np.array(plan.deal(step)).tolist() for step in reversed(steps)} == once


@given(case=TRAINING | VALIDATION, step=st.integers(0, 20))
def test_replicas_share_out_the_global_batch(case: Case, step: int) -> None:
    plan = case.plan()
    dealt = np.array(plan.deal(step))
    assert dealt.shape == (case.accumulation, case.replicas, case.micro_batch_size)
    assert sorted(dealt.flatten()) == sorted(plan.rows(step))
    assert plan.micro_batches == case.accumulation


def test_the_longest_rows_come_first_and_together() -> None:
    plan = FIXED.plan()
    lengths = np.where(plan.deal(0) == PADDING_ROW, 0, plan.lengths[plan.deal(0)])
    assert lengths[0].min() >= lengths[1].max()
    assert lengths[0, 0, 0] == lengths.max()
    for micro in lengths:  # replicas that wait for each other have about as much to do
        assert micro[0, 0] >= micro[1, 0] >= micro[0, 1] >= micro[1, 1]


@given(case=VALIDATION)
def test_validation_takes_each_row_once_and_pads_at_the_end_only(case: Case) -> None:
    plan, rows = case.plan(), len(case.lengths)
    numbers = drawn(plan, plan.steps_per_pass)
    assert numbers[:rows] == list(range(rows))
    assert set(numbers[rows:]) <= {PADDING_ROW}
    assert len(numbers) - rows < case.global_batch_size


@given(case=TRAINING, step=st.integers(0, 50))
def test_training_never_pads_with_rows(case: Case, step: int) -> None:
    assert case.plan().rows(step).min() >= 0


@given(case=TRAINING | VALIDATION)
def test_counts_are_what_the_batches_hold(case: Case) -> None:
    plan = case.plan()
    for step in range(plan.steps_per_pass):
        assert plan.counts(step) == _counted(case, plan, step)


def _counted(case: Case, plan: BatchPlan, step: int) -> BatchCounts:
    rows = computed = 0
    tokens: list[int] = []
    for rank in range(case.replicas):
        for micro in PlannedBatches(plan, rank=rank, first_step=step, steps=step + 1):
            lengths = [case.lengths[row] for row in micro if row != PADDING_ROW]
            padded = next(size for size in range(case.pad_to, 99, case.pad_to) if size >= max(lengths, default=1))
            assert plan.padded_length(np.asarray(micro)) == padded
            rows, computed = rows + len(lengths), computed + padded * len(micro)
            tokens += lengths
    return BatchCounts(rows, computed, sum(tokens), sum(length // 2 for length in tokens))


@given(case=TRAINING, first=st.integers(0, 6), more=st.integers(0, 6))
def test_a_continued_run_sees_what_the_uninterrupted_one_does(case: Case, first: int, more: int) -> None:
    plan, steps = case.plan(), first + more
    for rank in range(case.replicas):
        whole = list(PlannedBatches(plan, rank=rank, first_step=0, steps=steps))
        before = list(PlannedBatches(case.plan(), rank=rank, first_step=0, steps=first))
        after = list(PlannedBatches(case.plan(), rank=rank, first_step=first, steps=steps))
        assert before + after == whole
        longer = list(PlannedBatches(plan, rank=rank, first_step=0, steps=steps + 3))
        assert longer[: len(whole)] == whole


@given(case=TRAINING, first=st.integers(0, 6))
def test_the_length_counts_from_step_0_on(case: Case, first: int) -> None:
    batches = PlannedBatches(case.plan(), rank=0, first_step=first, steps=6)
    assert len(batches) == 6 * case.accumulation == len(list(batches)) + first * case.accumulation


@settings(max_examples=30)
@given(case=TRAINING, step=st.integers(0, 20))
def test_more_replicas_and_smaller_micro_batches_take_the_same_rows(case: Case, step: int) -> None:
    lone = Case(case.lengths, 1, 1, case.global_batch_size, case.pad_to, case.seed)
    assert case.plan().rows(step).tolist() == lone.plan().rows(step).tolist()


@pytest.mark.parametrize("global_batch_size", [1, 5, 6])
def test_a_batch_that_cannot_be_dealt_is_refused(global_batch_size: int) -> None:
    ones = np.ones(3, dtype=np.int64)
    sizes = {"micro_batch_size": 2, "data_parallel_size": 2, "global_batch_size": global_batch_size}
    with pytest.raises(ConfigError, match=f"global_batch_size={global_batch_size} .* micro_batch_size=2 x 2"):
        BatchPlan(lengths=ones, supervised=ones, **sizes, pad_to=1, seed=0, repeat=True)


def packed(case: Case) -> PackedPlan:
    """Return the plan of a case with packing; its rows have at most 30 positions."""
    lengths = np.asarray(case.lengths, dtype=np.int64)
    return PackedPlan(
        seq_length=30,
        lengths=lengths,
        supervised=lengths // 2,
        micro_batch_size=case.micro_batch_size,
        global_batch_size=case.global_batch_size,
        data_parallel_size=case.replicas,
        pad_to=case.pad_to,
        seed=case.seed,
        repeat=case.repeat,
    )


@given(case=TRAINING | VALIDATION, step=st.integers(0, 20))
def test_packing_takes_the_same_rows_within_the_room_there_is(case: Case, step: int) -> None:
    plan = packed(case)
    dealt = plan.deal(step)
    rows = [row for replicas in dealt for micro_batch in replicas for row in micro_batch]
    assert sorted(row for row in rows if row != PADDING_ROW) == sorted(
        row for row in case.plan().rows(step) if row != PADDING_ROW
    )
    assert {len(replicas) for replicas in dealt} == {case.replicas}
    assert len(dealt) == plan.micro_batches_of(step) <= plan.micro_batches
    for replicas in dealt:
        for micro_batch in replicas:
            held = case.plan().lengths[micro_batch[micro_batch != PADDING_ROW]].sum()
            assert held <= plan.capacity
            assert plan.positions(micro_batch) >= held
            assert plan.positions(micro_batch) % case.pad_to == 0


def test_packing_needs_fewer_micro_batches_and_gives_replicas_equal_shares() -> None:
    case = Case(
        [7, 3, 9, 29, 2, 11, 5, 8, 1, 4, 17, 6], micro_batch_size=2, replicas=2, accumulation=3, pad_to=1, seed=1
    )
    dealt = packed(case).deal(0)
    loads = [[int(case.plan().lengths[rows].sum()) for rows in replicas] for replicas in dealt]
    assert loads == [[51, 51]]
    counts, padded = packed(case).counts(0), case.plan().counts(0)
    assert counts.tokens == counts.nonpad_tokens == padded.nonpad_tokens < padded.tokens
    assert counts.supervised_tokens == padded.supervised_tokens
