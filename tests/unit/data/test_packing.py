import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_reasoning.data.packing import PackingPlan, pack, pack_in_order
from nemo_reasoning.errors import DataError

CAPACITY = 64
LENGTHS = st.lists(st.integers(1, CAPACITY), max_size=200).map(lambda lengths: np.array(lengths, dtype=np.int64))


def _first_fit_decreasing(lengths: np.ndarray) -> int:
    rooms: list[int] = []
    for length in sorted(lengths.tolist(), reverse=True):
        place = next((place for place, room in enumerate(rooms) if room >= length), None)
        if place is None:
            rooms.append(CAPACITY - length)
        else:
            rooms[place] -= length
    return len(rooms)


def _check(plan: PackingPlan, lengths: np.ndarray) -> None:
    assert sorted(plan.rows) == list(range(len(lengths)))
    assert all(0 < lengths[plan[number]].sum() <= CAPACITY for number in range(len(plan)))


@settings(deadline=None)
@given(LENGTHS)
def test_every_row_is_in_one_bin_and_no_more_bins_than_first_fit_decreasing(lengths: np.ndarray) -> None:
    plan = pack(lengths, CAPACITY)
    _check(plan, lengths)
    assert len(plan) <= _first_fit_decreasing(lengths)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 50))
def test_order_is_kept_but_for_the_window(lengths: np.ndarray, window: int) -> None:
    plan = pack_in_order(lengths, CAPACITY, window=window)
    _check(plan, lengths)
    firsts = [int(plan[number].min()) for number in range(len(plan))]
    assert firsts == sorted(firsts)
    assert all(plan[number].max() - plan[number].min() < window for number in range(len(plan)))


def test_a_pair_that_fills_a_bin_goes_before_the_longest_row() -> None:
    plan = pack(np.array([30, 20, 14, 12, 18, 34]), CAPACITY)
    assert len(plan) == 2
    assert plan.efficiency(np.array([30, 20, 14, 12, 18, 34])) == 1.0


def test_log_normal_lengths_fill_bins(tmp_path) -> None:
    numbers = np.random.default_rng(0)
    lengths = np.clip(numbers.lognormal(7.1, 1, 20_000).astype(np.int64), 1, 8192)
    plan = pack(lengths, 8192)
    assert plan.efficiency(lengths) > 0.995
    plan.save(tmp_path)
    assert np.array_equal(PackingPlan.open(tmp_path, capacity=8192).rows, plan.rows)
    assert pack_in_order(lengths, 8192, window=4096).efficiency(lengths) > 0.99


@pytest.mark.parametrize("lengths", [[0, 1], [65]])
def test_rows_that_fit_no_bin_are_refused(lengths: list[int]) -> None:
    with pytest.raises(DataError, match="cannot be packed into bins of 64"):
        pack(np.array(lengths), CAPACITY)
