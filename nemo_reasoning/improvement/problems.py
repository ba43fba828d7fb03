"""The problems of each round, and those that no round asks."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from nemo_reasoning.artifacts import fingerprint
from nemo_reasoning.config.evaluate import BenchmarkLayout, BenchmarkSettings, ProtocolName
from nemo_reasoning.config.self_improve import ProblemSettings
from nemo_reasoning.data.builtin import HELD_OUT_SHARE, held_out, training_problems
from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.benchmarks.load import as_question, load_benchmark
from nemo_reasoning.evaluation.benchmarks.question import Question
from nemo_reasoning.evaluation.prompts import render_prompt
from nemo_reasoning.evaluation.runner import SampleRequest
from nemo_reasoning.reasoning.messages import Mode


@dataclass(frozen=True)
class Problems:
    """Questions with known answers, in two parts that share none.

    Attributes:
        asked: What rounds ask, in the order they do.
        held_out: What is measured.
        count: Questions of a round.
        prompt: The user turn, with the place {question}.
    """

    asked: Sequence[Question]
    held_out: Sequence[Question]
    count: int
    prompt: str

    def of_round(self, number: int) -> list[Question]:
        """Return the questions of a round, counted from 1: other ones each time, until all were asked."""
        first = (number - 1) * self.count
        return [self.asked[place % len(self.asked)] for place in range(first, first + min(self.count, len(self.asked)))]

    def requests(
        self, questions: Sequence[Question], *, modes: Sequence[Mode], budget: int | None, samples: int
    ) -> list[SampleRequest]:
        """Return what is asked of a model.

        Args:
            questions: Of a round, or held out.
            modes: Of thinking.
            budget: Most thinking tokens; None for no limit.
            samples: Answers to each question in each mode.
        """
        return [
            SampleRequest(
                question=question,
                prompt=render_prompt(question, protocol=ProtocolName.ours, template=self.prompt, examples={}),
                mode=mode,
                budget=budget if mode == "on" else None,
                index=index,
            )
            for mode in modes
            for question in questions
            for index in range(samples)
        ]

    @property
    def identity(self) -> str:
        """Fingerprint of all questions, their answers and the way they are put."""
        parts = [[(one.id, one.text, one.answer) for one in part] for part in (self.asked, self.held_out)]
        return fingerprint([*parts, self.prompt])


def load_problems(settings: ProblemSettings, *, seed: int) -> Problems:
    """Return the problems that settings name.

    Args:
        settings: `problems` of conf/self_improve.yaml.
        seed: Of their order.

    Raises:
        DataError: There are too few, or they cannot be read.
    """
    if settings.layout is BenchmarkLayout.builtin:
        asked = [as_question(problem) for problem in training_problems(seed=seed)]
        measured = [as_question(problem) for problem in held_out(count=settings.held_out, seed=seed)]
    else:
        asked, measured = _divided(_read(settings), seed=seed)
    for name, part in (("count", asked), ("held_out", measured)):
        wanted = getattr(settings, name)
        if len(part) < wanted:
            raise DataError(f"problems.{name}={wanted}, but there are {len(part)} such problems; ask for fewer")
    return Problems(asked, measured[: settings.held_out], settings.count, settings.prompt)


def _read(settings: ProblemSettings) -> list[Question]:
    """Return different questions; of one that comes twice, the first."""
    path = Path(settings.source or "").expanduser()
    source, files = (str(path.parent), [path.name]) if path.is_file() else (settings.source, settings.files)
    benchmark = BenchmarkSettings(
        layout=settings.layout,
        source=source,
        revision=settings.revision,
        files=files,
        examples=[],
        few_shot=0,
        shuffle=False,
        subjects=None,
        count=None,
        prompt=settings.prompt,
    )
    questions = load_benchmark("problems", benchmark, seed=0, limit=None).questions
    return list({question.text: question for question in reversed(questions)}.values())[::-1]


def _divided(questions: list[Question], *, seed: int) -> tuple[list[Question], list[Question]]:
    """Divide questions by a hash of their text, so that others may be added, and shuffle both parts."""
    parts: tuple[list[Question], list[Question]] = ([], [])
    for question in questions:
        parts[hashlib.sha256(question.text.encode()).digest()[0] % HELD_OUT_SHARE == 0].append(question)
    for part in parts:
        part.sort(key=lambda question: question.text)
        Random(seed).shuffle(part)
    return parts
