"""Ask a model problems in both modes, and judge what it answers."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nemo_reasoning.answers import answers_equal, extract_final_answer
from nemo_reasoning.artifacts import write_text
from nemo_reasoning.data.builtin import Problem
from nemo_reasoning.data.schema import Message, Mode
from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.statistics import wilson_interval
from nemo_reasoning.inference.engine import Completion, Engine, GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One problem, what the model wrote, and the verdict.

    Attributes:
        family: Kind of problem.
        mode: Whether the model was asked to think.
        prompt: The question.
        expected: The right answer.
        extracted: The answer found in the text; None if there is none.
        correct: Whether the two are equal, however the text is formed.
        well_formed: Whether the text has the format of its mode and came to its end.
        truncated: Whether it was cut at the token limit.
        reasoning: Content of the thinking block.
        answer: Text after it.
        text: All the model wrote.
        completion_tokens: Tokens generated, the end-of-turn token included.
        reasoning_tokens: Those of the thinking block.
    """

    family: str
    mode: Mode
    prompt: str
    expected: str
    extracted: str | None
    correct: bool
    well_formed: bool
    truncated: bool
    reasoning: str
    answer: str
    text: str
    completion_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Counts over the samples of one mode.

    Attributes:
        n: Samples.
        correct: Those with the right answer.
        well_formed: Those with the format of the mode.
        truncated: Those cut at the token limit.
        mean_tokens: Mean of the generated tokens.
        mean_reasoning_tokens: Mean of the tokens in thinking blocks.
        families: Per kind of problem, {"n": ..., "correct": ...}.
    """

    n: int
    correct: int
    well_formed: int
    truncated: int
    mean_tokens: float
    mean_reasoning_tokens: float
    families: dict[str, dict[str, int]]

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1."""
        return self.correct / self.n

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy."""
        return wilson_interval(self.correct, self.n)

    @property
    def well_formed_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the share with the right format."""
        return wilson_interval(self.well_formed, self.n)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, and what follows from them, as report.json holds them."""
        return asdict(self) | {
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "well_formed_interval": list(self.well_formed_interval),
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All samples of a model, in the order they were asked."""

    samples: tuple[Sample, ...]

    def score(self, mode: Mode) -> Score:
        """Count the samples of a mode.

        Raises:
            DataError: There are none.
        """
        return score(self.of(mode))

    def of(self, mode: Mode) -> list[Sample]:
        """Return the samples of a mode."""
        return [sample for sample in self.samples if sample.mode == mode]

    def save(self, path: Path) -> None:
        """Write one JSON object a line, atomically."""
        lines = (json.dumps(asdict(sample), ensure_ascii=False) + "\n" for sample in self.samples)
        write_text(path, "".join(lines))

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """Read what `save` wrote.

        Raises:
            DataError: There is no such file, or a line of it is no sample.
        """
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            raise DataError(f"{path} does not exist; evaluate the model first") from None
        try:
            return cls(tuple(Sample(**json.loads(line)) for line in lines if line))
        except (json.JSONDecodeError, TypeError) as error:
            raise DataError(f"{path} holds a line that is no sample ({error}); evaluate again") from error


def evaluate(
    engine: Engine,
    problems: Sequence[Problem],
    modes: Sequence[Mode] = ("on", "off"),
    *,
    max_new_tokens: int,
) -> Evaluation:
    """Let a model answer every problem in every mode, greedily.

    Args:
        engine: The model.
        problems: With answers that are numbers: a text that states no answer counts by its last number,
            because a model that never learnt the sentence may still have computed the value.
        modes: Of thinking.
        max_new_tokens: Bound on each completion, thinking included.

    Raises:
        DataError: `problems` is empty.
    """
    if not problems:
        raise DataError("there are no problems to evaluate; raise their count")
    samples: list[Sample] = []
    for mode in modes:
        requests = [
            GenerationRequest(messages=(Message("user", problem.prompt),), mode=mode, max_new_tokens=max_new_tokens)
            for problem in problems
        ]
        completions = engine.generate(requests)
        samples += [judge(problem, mode, completion) for problem, completion in zip(problems, completions, strict=True)]
    return Evaluation(tuple(samples))


def judge(problem: Problem, mode: Mode, completion: Completion) -> Sample:
    """Return the verdict on a completion; thinking is never searched for the answer."""
    extracted = extract_final_answer(completion.answer, last_number=True)
    return Sample(
        family=problem.family,
        mode=mode,
        prompt=problem.prompt,
        expected=problem.answer,
        extracted=extracted,
        correct=extracted is not None and answers_equal(extracted, problem.answer),
        well_formed=completion.well_formed,
        truncated=completion.finish_reason == "length",
        reasoning=completion.reasoning,
        answer=completion.answer,
        text=completion.text,
        completion_tokens=completion.completion_tokens,
        reasoning_tokens=completion.reasoning_tokens,
    )


def score(samples: Iterable[Sample]) -> Score:
    """Count samples.

    Raises:
        DataError: There are none.
    """
    counted = list(samples)
    if not counted:
        raise DataError("there are no samples to score; evaluate in both modes")
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
        mean_tokens=sum(sample.completion_tokens for sample in counted) / len(counted),
        mean_reasoning_tokens=sum(sample.reasoning_tokens for sample in counted) / len(counted),
        families=families,
    )
