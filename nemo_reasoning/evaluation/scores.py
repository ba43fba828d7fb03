"""Counts over samples, and what follows from them."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nemo_reasoning.answers import answers_equal
from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.samples import Sample
from nemo_reasoning.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    majority_at_k,
    pass_at_k,
    wilson_interval,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Counts over the samples of one mode.

    Attributes:
        n: Samples.
        correct: Those with the right answer.
        well_formed: Those with the format of the mode.
        truncated: Those cut at the token limit.
        refused: Those that decline to answer.
        unanswered: Those without an answer, the refused ones included.
        mean_tokens: Mean of the generated tokens; None where a server did not count them.
        mean_reasoning_tokens: Mean of the tokens in thinking blocks; None where they were not counted.
        over_budget: Samples that thought longer than their budget; None where that was not counted.
        least_limit: Smallest token limit of a sample; None where it was not recorded.
        mean_seconds: Mean time; see `Sample.seconds`.
        families: Per kind of problem, {"n": ..., "correct": ...}.
    """

    n: int
    correct: int
    well_formed: int
    truncated: int
    refused: int
    unanswered: int
    mean_tokens: float | None
    mean_reasoning_tokens: float | None
    over_budget: int | None
    least_limit: int | None
    mean_seconds: float
    families: dict[str, dict[str, int]]

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1."""
        return self.correct / self.n

    @property
    def accuracy_interval(self) -> Interval:
        """95 % Wilson interval of the accuracy."""
        return wilson_interval(self.correct, self.n)

    @property
    def well_formed_interval(self) -> Interval:
        """95 % Wilson interval of the share with the right format."""
        return wilson_interval(self.well_formed, self.n)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, and what follows from them, as report.json holds them."""
        return asdict(self) | {
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "well_formed_interval": list(self.well_formed_interval),
        }


def score(samples: Iterable[Sample]) -> Score:
    """Count samples.

    Raises:
        DataError: There are none.
    """
    counted = list(samples)
    if not counted:
        raise DataError("there are no samples to score; evaluate in both modes")
    tokens = [sample.reasoning_tokens for sample in counted if sample.reasoning_tokens is not None]
    thinking = tokens if len(tokens) == len(counted) else None
    written = [sample.completion_tokens for sample in counted]
    families: dict[str, dict[str, int]] = {}
    for sample in counted:
        family = families.setdefault(sample.family, {"n": 0, "correct": 0})
        family["n"] += 1
        family["correct"] += sample.correct
    return Score(
        n=len(counted),
        correct=sum(sample.correct for sample in counted),
        well_formed=sum(sample.well_formed for sample in counted),
        truncated=sum(sample.truncated for sample in counted),
        refused=sum(sample.refused for sample in counted),
        unanswered=sum(sample.extracted is None for sample in counted),
        mean_tokens=sum(written) / len(counted) if all(written) else None,  # nobody writes less than one
        mean_reasoning_tokens=None if thinking is None else sum(thinking) / len(counted),
        over_budget=None if thinking is None else _over_budget(counted),
        least_limit=min((one.max_new_tokens for one in counted if one.max_new_tokens is not None), default=None),
        mean_seconds=sum(sample.seconds for sample in counted) / len(counted),
        families=families,
    )


def _over_budget(samples: Sequence[Sample]) -> int:
    return sum(sample.budget is not None and (sample.reasoning_tokens or 0) > sample.budget for sample in samples)


def by_question(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Return the samples of each question, in the order the questions were asked."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.question, []).append(sample)
    return groups


def shares(samples: Iterable[Sample]) -> dict[str, float]:
    """Return the share of right samples of each question."""
    return {
        question: sum(sample.correct for sample in group) / len(group)
        for question, group in by_question(samples).items()
    }


def question_statistics(samples: Sequence[Sample], *, seed: int) -> dict[str, Any]:
    """Return what counts by question: the bootstrap interval, and with several samples pass@k and maj@k.

    k runs over the powers of two up to the samples every question has. A sample that was cut at its limit has no vote.
    """
    groups = by_question(samples)
    found: dict[str, Any] = {
        "questions": len(groups),
        "bootstrap_interval": list(bootstrap_interval(list(shares(samples).values()), seed=seed)),
    }
    fewest = min(map(len, groups.values()))
    if fewest > 1:
        sizes = sorted({2**power for power in range(fewest.bit_length()) if 2**power <= fewest} | {fewest})
        every = list(groups.values())
        found["pass_at"] = {str(k): _mean(pass_at_k(_right(one), len(one), k) for one in every) for k in sizes}
        found["majority_at"] = {str(k): _mean(_majority(one, k) for one in every) for k in sizes}
    return found


def _right(group: Sequence[Sample]) -> int:
    return sum(sample.correct for sample in group)


def _majority(group: Sequence[Sample], k: int) -> float:
    wrong: list[list[str]] = []  # equal answers together
    for sample in group:
        if sample.correct or sample.extracted is None or sample.truncated:
            continue
        for answers in wrong:
            if answers_equal(answers[0], sample.extracted):
                answers.append(sample.extracted)
                break
        else:
            wrong.append([sample.extracted])
    right = sum(sample.correct and not sample.truncated for sample in group)
    silent = sum(sample.extracted is None or sample.truncated for sample in group)
    return majority_at_k(right, [len(answers) for answers in wrong], silent, k)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
