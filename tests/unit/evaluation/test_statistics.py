"""Statistics equal those of scipy and statsmodels, and closed forms."""

from itertools import combinations
from math import comb, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap
from statsmodels.api import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.statistics import (
    bootstrap_interval,
    majority_at_k,
    mcnemar_clustered,
    paired_difference,
    pass_at_k,
    wilson_interval,
)


def shares(*, questions: int, samples: int, seed: int) -> NDArray[np.float64]:
    """Return shares of right samples [2, questions] of two models."""
    generator = np.random.default_rng(seed)
    difficulty = generator.uniform(0.1, 0.9, questions)
    chances = np.stack([difficulty, np.minimum(1, difficulty + 0.1)])
    return generator.binomial(samples, chances) / samples


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 60), (22, 60), (53, 60), (60, 60), (1, 100000)])
@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_wilson_interval_equals_both(successes: int, n: int, confidence: float) -> None:
    found = wilson_interval(successes, n, confidence=confidence)
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert found == pytest.approx(tuple(expected), abs=1e-12)
    assert found == pytest.approx(proportion_confint(successes, n, 1 - confidence, method="wilson"), abs=1e-6)


@pytest.mark.parametrize("samples", [1, 4])
def test_the_bootstrap_equals_scipys(samples: int) -> None:
    values = shares(questions=198, samples=samples, seed=1)[0]
    expected = bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(7)
    ).confidence_interval
    assert bootstrap_interval(values.tolist(), seed=7) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert bootstrap_interval(values.tolist(), seed=7) == bootstrap_interval(values.tolist(), seed=7)


def test_the_bootstrap_of_equal_values_has_no_width() -> None:
    assert bootstrap_interval([1.0] * 9, seed=0) == (1.0, 1.0)
    assert bootstrap_interval([0.5], seed=0) == (0.5, 0.5)


@pytest.mark.parametrize("samples", [1, 2, 8])
def test_the_error_equals_the_cluster_robust_one_of_statsmodels(samples: int) -> None:
    first, second = shares(questions=50, samples=samples, seed=3)
    rights = [(np.arange(samples) < share * samples - 0.5).astype(float) for share in np.concatenate([first, second])]
    every = np.concatenate(rights[50:]) - np.concatenate(rights[:50])
    fit = OLS(every, np.ones_like(every)).fit(
        cov_type="cluster", cov_kwds={"groups": np.repeat(np.arange(50), samples)}, use_t=False
    )
    found = paired_difference(first.tolist(), second.tolist(), seed=0)
    assert found.difference == pytest.approx(fit.params[0], abs=1e-6)
    assert found.standard_error == pytest.approx(fit.bse[0], abs=1e-6)
    assert found.interval == pytest.approx(tuple(fit.conf_int()[0]), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_equals_statsmodels(seed: int) -> None:
    first, second = shares(questions=60, samples=1, seed=seed)
    table = [[int(((first == row) & (second == column)).sum()) for column in (1, 0)] for row in (1, 0)]
    found = paired_difference(first.tolist(), second.tolist(), seed=0)
    assert found.p_value == pytest.approx(mcnemar(table, exact=True).pvalue, abs=1e-6)
    assert (found.gained, found.lost) == (table[1][0], table[0][1])
    clustered = mcnemar_clustered((second - first).tolist())  # of single samples it is the test without correction
    assert clustered == pytest.approx(mcnemar(table, exact=False, correction=False).pvalue, abs=1e-6)


def test_several_samples_a_question_do_not_count_as_questions() -> None:
    """Ten copies of each sample add nothing: the test of clusters must not become more certain."""
    first, second = shares(questions=40, samples=10, seed=9)
    halves = paired_difference(np.repeat(first, 2).tolist(), np.repeat(second, 2).tolist(), seed=0)
    assert paired_difference(first.tolist(), second.tolist(), seed=0).p_value > halves.p_value
    assert mcnemar_clustered([0.0, 0.0]) == 1.0


def test_one_question_has_no_error() -> None:
    assert paired_difference([0.0], [1.0], seed=0).standard_error == pytest.approx(nan, nan_ok=True)


@pytest.mark.parametrize(
    ("first", "second"), [([0], [1]), ([1], [1]), ([0] * 3, [1] * 3), ([1] * 9, [0] * 9), ([0, 0, 1], [1, 1, 0.5])]
)
def test_the_interval_of_a_difference_stays_within_what_can_be(first: list[float], second: list[float]) -> None:
    found = paired_difference(first, second, seed=0)
    low, high = found.interval
    assert -1 <= low < high <= 1
    assert low <= found.difference <= high


@given(data=st.data(), n=st.integers(min_value=1, max_value=12))
def test_pass_at_k_is_the_closed_form(data: st.DataObject, n: int) -> None:
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    every = list(combinations([True] * correct + [False] * (n - correct), k))
    assert len(every) == comb(n, k)
    assert pass_at_k(correct, n, k) == pytest.approx(sum(map(any, every)) / len(every), abs=1e-12)


@given(
    right=st.integers(0, 4), others=st.lists(st.integers(1, 3), max_size=3), silent=st.integers(0, 2), data=st.data()
)
def test_majority_at_k_is_the_mean_over_all_choices(
    right: int, others: list[int], silent: int, data: st.DataObject
) -> None:
    answers = ["right"] * right + [f"wrong{kind}" for kind, size in enumerate(others) for _ in range(size)]
    answers += [""] * silent
    if not answers:
        return
    k = data.draw(st.integers(1, len(answers)))
    scores = []
    for chosen in combinations(answers, k):
        votes = {answer: chosen.count(answer) for answer in set(chosen) - {""}}
        best = [answer for answer, count in votes.items() if count == max(votes.values())]
        scores.append("right" in best and 1 / len(best))
    assert majority_at_k(right, others, silent, k) == pytest.approx(sum(scores) / len(scores), abs=1e-12)


def test_what_has_no_statistic_is_refused() -> None:
    for successes, n in ((0, 0), (-1, 3), (4, 3)):
        with pytest.raises(DataError, match=f"{successes} successes in {n}"):
            wilson_interval(successes, n)
    for refused in (lambda: pass_at_k(1, 2, 3), lambda: majority_at_k(1, [1], 0, 3)):
        with pytest.raises(DataError, match="k must lie between"):
            refused()
    with pytest.raises(DataError, match="no questions"):
        bootstrap_interval([], seed=0)
    with pytest.raises(DataError, match="cannot be paired"):
        paired_difference([1.0], [1.0, 0.0], seed=0)
