"""What was measured: scores of models on benchmarks, and the differences between them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nemo_reasoning.evaluation.samples import Evaluation, Sample
from nemo_reasoning.evaluation.scores import Score, question_statistics, score, shares
from nemo_reasoning.evaluation.statistics import (
    Interval,
    PairedDifference,
    bootstrap_interval,
    paired_difference,
    wilson_interval,
)
from nemo_reasoning.reasoning.messages import Mode

Setting = tuple[Mode, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """Models on one benchmark.

    Attributes:
        benchmark: Its name.
        evaluations: By model, "base" before "trained".
        contaminated: Ids of questions found in the training data; None where that was not checked.
        seed: Of the bootstrap.
    """

    benchmark: str
    evaluations: Mapping[str, Evaluation]
    contaminated: Sequence[str] | None
    seed: int

    def settings(self) -> list[Setting]:
        """Return every mode and budget that was measured."""
        return list(
            dict.fromkeys(
                (sample.mode, sample.budget)
                for evaluation in self.evaluations.values()
                for sample in evaluation.samples
            )
        )

    def main_setting(self) -> Setting:
        """Return the mode and budget that let the model think most."""
        return max(self.settings(), key=lambda found: (found[0] == "on", found[1] is None, found[1] or 0))

    def questions(self) -> list[str]:
        """Return the ids of all questions."""
        every = (sample for evaluation in self.evaluations.values() for sample in evaluation.samples)
        return list(dict.fromkeys(sample.question for sample in every))

    def samples(self, model: str, setting: Setting) -> list[Sample]:
        """Return the samples of a model in a mode with a budget."""
        return self.evaluations[model].at(*setting)

    def score(self, model: str, setting: Setting) -> Score:
        """Count them."""
        return score(self.samples(model, setting))

    def interval(self, model: str, setting: Setting) -> Interval:
        """Return the 95 % interval of the accuracy.

        It is Wilson's; where questions have several samples, the bootstrap's over questions, unless all
        samples agree: resampling would then claim certainty, so Wilson's counts each question once.
        """
        samples = self.samples(model, setting)
        found = list(shares(samples).values())
        if len(set(found)) == 1 and found[0] in (0, 1):
            return wilson_interval(round(sum(found)), len(found))
        if len(found) == len(samples):
            return score(samples).accuracy_interval
        return bootstrap_interval(found, seed=self.seed)

    def gain(self, setting: Setting) -> PairedDifference | None:
        """Compare the trained model with its base, where both were measured."""
        if not {"base", "trained"} <= set(self.evaluations):
            return None
        return difference(self.samples("base", setting), self.samples("trained", setting), seed=self.seed)

    def thinking_gain(self, model: str, budget: int | None) -> PairedDifference | None:
        """Compare thinking on with thinking off, where both were measured."""
        off, on = self.samples(model, ("off", None)), self.samples(model, ("on", budget))
        return difference(off, on, seed=self.seed) if off and on else None

    def to_dict(self) -> dict[str, Any]:
        """Return what report.json holds of the benchmark."""
        settings = self.settings()
        gains = [{"mode": setting[0], "budget": setting[1], **_plain(self.gain(setting))} for setting in settings]
        thinking = [
            {"model": model, "budget": budget, **_plain(self.thinking_gain(model, budget))}
            for model in self.evaluations
            for mode, budget in settings
            if mode == "on"
        ]
        return {
            "scores": [self._score_dict(model, setting) for model in self.evaluations for setting in settings],
            "gain": [gain for gain in gains if "difference" in gain],
            "thinking_gain": [gain for gain in thinking if "difference" in gain],
            "contaminated": None if self.contaminated is None else list(self.contaminated),
        }

    def _score_dict(self, model: str, setting: Setting) -> dict[str, Any]:
        samples = self.samples(model, setting)
        mode, budget = setting
        found: dict[str, Any] = {"model": model, "mode": mode, "budget": budget}
        found |= score(samples).to_dict() | question_statistics(samples, seed=self.seed)
        found["accuracy_interval"] = list(self.interval(model, setting))
        if self.contaminated:
            clean = [sample for sample in samples if sample.question not in set(self.contaminated)]
            found["accuracy_without_contaminated"] = score(clean).accuracy if clean else None
        return found


def _plain(found: PairedDifference | None) -> dict[str, Any]:
    return {} if found is None else asdict(found)


def difference(first: Sequence[Sample], second: Sequence[Sample], *, seed: int) -> PairedDifference:
    """Compare two sets of samples on the questions that both contain.

    Raises:
        DataError: They have none in common.
    """
    before, after = shares(first), shares(second)
    common = [question for question in before if question in after]
    return paired_difference(
        [before[question] for question in common], [after[question] for question in common], seed=seed
    )


def failures(measurement: BenchmarkResult, model: str, *, count: int) -> list[Sample]:
    """Return wrong answers to look at: one of every kind and subject, then the next, those with most thinking first."""
    main = measurement.main_setting()
    settings = sorted(measurement.settings(), key=lambda setting: setting != main)
    picked: list[Sample] = []
    for setting in settings:
        groups: dict[tuple[str, str], list[Sample]] = {}
        for sample in measurement.samples(model, setting):
            if not sample.correct:
                groups.setdefault((failure(sample).partition(" ")[0], sample.family), []).append(sample)
        for place in range(max(map(len, groups.values()), default=0)):
            picked += [group[place] for group in groups.values() if place < len(group)]
    return picked[:count]


def failure(sample: Sample) -> str:
    """Return in a word why a sample counts as wrong."""
    if sample.truncated:
        return "cut at the token limit"
    if sample.refused:
        return "refused"
    return "no answer found" if sample.extracted is None else f"answered {sample.extracted}"
