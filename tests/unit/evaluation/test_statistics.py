"""Intervals equal scipy's."""

import pytest
from scipy.stats import binomtest

from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.statistics import wilson_interval


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 60), (22, 60), (53, 60), (60, 60), (1, 100000)])
@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_wilson_interval_equals_scipys(successes: int, n: int, confidence: float) -> None:
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, n, confidence=confidence) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_counts_without_an_interval_are_refused(successes: int, n: int) -> None:
    with pytest.raises(DataError, match=f"{successes} successes in {n}"):
        wilson_interval(successes, n)
