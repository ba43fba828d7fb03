"""How sure a measured share is, and whether two differ.

Every test works on questions, not on samples: the samples of a question are alike, and counting each as
an observation of its own would claim more certainty than there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist
from typing import Any

from nemo_reasoning.errors import DataError

Interval = tuple[float, float]


def wilson_interval(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Return the score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22, 209-212).

    Unlike the normal approximation it stays within 0 and 1, and has a width at 0 and at n successes.

    Args:
        successes: From 0 to `n`.
        n: Trials.
        confidence: Probability with which such an interval covers the true share.

    Raises:
        DataError: `n` is 0, or `successes` lies outside 0 to n.
    """
    if not 0 <= successes <= n or n == 0:
        raise DataError(f"{successes} successes in {n} trials have no interval; evaluate at least one problem")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, squared = successes / n, z * z / n
    centre = share + squared / 2
    spread = sqrt(squared * (share * (1 - share) + squared / 4))
    return max(0.0, (centre - spread) / (1 + squared)), min(1.0, (centre + spread) / (1 + squared))


def bootstrap_interval(
    values: Sequence[float], *, seed: int, resamples: int = 2000, confidence: float = 0.95
) -> Interval:
    """Return the percentile interval of a mean over resampled questions (Efron 1979, Ann. Statist. 7, 1-26).

    Args:
        values: One per question: its share of right samples, or its difference between two models.
        seed: Of the resampling; the same seed gives the same interval.
        resamples: How often to draw as many questions as there are, with replacement.
        confidence: Share of the resampled means inside.

    Raises:
        DataError: There are no values.
    """
    import numpy as np
    from scipy.stats import bootstrap

    _require(values)
    if len(values) == 1:
        return float(values[0]), float(values[0])
    result: Any = bootstrap(
        (np.asarray(values, dtype=np.float64),),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 10_000_000 // len(values)),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """Two models, or two modes, on the same questions.

    Attributes:
        questions: That both answered.
        difference: Second minus first, as a share.
        standard_error: Of the difference, clustered by question.
        interval: 95 % interval: the difference and 1.96 standard errors to each side, within -1 and 1. Where all
            questions agree, so that the standard error would claim certainty, it is Agresti and Min's.
        bootstrap: 95 % percentile interval over resampled questions.
        gained: Questions on which the second has the larger share of right samples.
        lost: Questions on which the first has.
        p_value: Two-sided, of McNemar's test that gains and losses are equally likely.
    """

    questions: int
    difference: float
    standard_error: float
    interval: Interval
    bootstrap: Interval
    gained: int
    lost: int
    p_value: float


def paired_difference(first: Sequence[float], second: Sequence[float], *, seed: int) -> PairedDifference:
    """Compare the shares of right samples, question by question.

    The standard error is that of a mean of question differences, sd / sqrt(n): with equally many samples a
    question it equals the cluster-robust error of all samples (Miller 2024, arXiv 2411.00640). The test is
    the exact McNemar test (1947, Psychometrika 12, 153-157) where every question has one sample, and its
    form for clusters by Durkalski et al. (2003, Stat. Med. 22, 2417-2428) otherwise.

    Args:
        first: One share per question.
        second: In the same order.
        seed: Of the bootstrap.

    Raises:
        DataError: There are no questions, or not equally many.
    """
    _require(first)
    if len(first) != len(second):
        raise DataError(f"{len(first)} and {len(second)} questions cannot be paired; compare those both answered")
    differences = [after - before for before, after in zip(first, second, strict=True)]
    mean = sum(differences) / len(differences)
    error = standard_error(differences)
    single = all(share in (0, 1) for share in (*first, *second))
    return PairedDifference(
        questions=len(differences),
        difference=mean,
        standard_error=error,
        interval=_difference_interval(differences, mean=mean, error=error),
        bootstrap=bootstrap_interval(differences, seed=seed),
        gained=sum(difference > 0 for difference in differences),
        lost=sum(difference < 0 for difference in differences),
        p_value=mcnemar_exact(differences) if single else mcnemar_clustered(differences),
    )


def _difference_interval(differences: Sequence[float], *, mean: float, error: float) -> Interval:
    """Return the 95 % interval of a mean difference.

    Without any spread it is that of two more questions, of which the models share the gain and the loss (Agresti
    and Min 2005, Stat. Med. 24, 729-740).
    """
    if not error > 0:  # zero, or not a number
        n = len(differences) + 2
        mean = sum(differences) / n
        error = sqrt((sum(value * value for value in differences) + 1) / n - mean**2) / sqrt(n)
    z = NormalDist().inv_cdf(0.975)
    return max(-1.0, mean - z * error), min(1.0, mean + z * error)


def standard_error(values: Sequence[float]) -> float:
    """Return sd / sqrt(n) of a mean; not a number for a single value."""
    n = len(values)
    mean = sum(values) / n
    return sqrt(sum((value - mean) ** 2 for value in values) / (n * (n - 1))) if n > 1 else float("nan")


def mcnemar_exact(differences: Sequence[float]) -> float:
    """Return the two-sided binomial p-value of differences that are -1, 0 or 1."""
    gained, lost = differences.count(1), differences.count(-1)
    n = gained + lost
    tail: float = sum(comb(n, successes) for successes in range(min(gained, lost) + 1)) / 2**n
    return min(1.0, 2 * tail)


def mcnemar_clustered(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of (sum d)^2 / sum d^2 against chi-squared with one degree of freedom."""
    squares = sum(difference**2 for difference in differences)
    if squares == 0:
        return 1.0
    return 2 * NormalDist().cdf(-abs(sum(differences)) / sqrt(squares))


def pass_at_k(correct: int, n: int, k: int) -> float:
    """Return the unbiased probability that one of `k` samples is right (Chen et al. 2021, arXiv 2107.03374).

    Args:
        correct: Right samples among `n`.
        n: Samples of the question.
        k: At most `n`.

    Raises:
        DataError: k is not between 1 and n.
    """
    if not 1 <= k <= n:
        raise DataError(f"pass@{k} of {n} samples; k must lie between 1 and the samples of a question")
    return 1 - comb(n - correct, k) / comb(n, k)


def majority_at_k(right: int, others: Sequence[int], silent: int, k: int) -> float:
    """Return the probability that the most frequent answer among `k` samples is the right one.

    Exact, over all choices of k of a question's samples (self-consistency: Wang et al. 2022, arXiv
    2203.11171). Answers that tie share the vote; samples without an answer have none.

    Args:
        right: Samples with the right answer.
        others: Samples with each of the wrong answers.
        silent: Samples without an answer.
        k: At most all of them.

    Raises:
        DataError: k is not between 1 and the number of samples.
    """
    n = right + sum(others) + silent
    if not 1 <= k <= n:
        raise DataError(f"maj@{k} of {n} samples; k must lie between 1 and the samples of a question")
    won = 0.0
    for votes in range(1, min(right, k) + 1):
        ways = {(k - votes, 0): comb(right, votes)}  # (samples still to choose, wrong answers that tie): ways
        for size in others:
            ways = _chosen(ways, size=size, votes=votes)
        for (remaining, ties), count in ways.items():
            won += count * comb(silent, remaining) / (1 + ties)
    return won / comb(n, k)


def _chosen(ways: dict[tuple[int, int], int], *, size: int, votes: int) -> dict[tuple[int, int], int]:
    """Extend the ways by those of choosing at most `votes` samples of one more answer."""
    extended: dict[tuple[int, int], int] = {}
    for (remaining, ties), count in ways.items():
        for taken in range(min(size, votes, remaining) + 1):
            key = (remaining - taken, ties + (taken == votes))
            extended[key] = extended.get(key, 0) + count * comb(size, taken)
    return extended


def _require(values: Sequence[float]) -> None:
    if not values:
        raise DataError("there are no questions to take statistics of; evaluate at least one")
