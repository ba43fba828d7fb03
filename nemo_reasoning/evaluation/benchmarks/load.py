"""Load a benchmark: find its files, read its questions, order their choices, draw a part of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from nemo_reasoning.artifacts import file_sha256
from nemo_reasoning.config.evaluate import BenchmarkLayout, BenchmarkSettings, EvaluationCallbackSettings
from nemo_reasoning.data.builtin import Problem, held_out
from nemo_reasoning.errors import ConfigError, DataError
from nemo_reasoning.evaluation.benchmarks.files import find_files, read_rows
from nemo_reasoning.evaluation.benchmarks.layouts import parse_question
from nemo_reasoning.evaluation.benchmarks.question import Question, shuffled
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.tags import split_thinking
from nemo_reasoning.training.callbacks.base import Questions

_NVIDIA_SEED = 42


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Questions to ask.

    Attributes:
        name: Of the benchmark.
        questions: In the order of their files.
        examples: Solved questions to show first, by subject; those under "" suit any subject.
        origin: What a manifest records: files with hashes, or the seed of built-in problems.
    """

    name: str
    questions: tuple[Question, ...]
    examples: dict[str, tuple[Question, ...]]
    origin: dict[str, Any]


def load_benchmark(
    name: str, settings: BenchmarkSettings, *, seed: int, limit: int | None, as_nvidia: bool = False
) -> Benchmark:
    """Return the questions of a benchmark.

    Args:
        name: For messages and the report.
        settings: Where it is and what to take; see conf/benchmark.
        seed: Of the order of choices and of the part drawn. A question's order depends on its id and the
            seed alone.
        limit: Most questions; which ones is drawn by the seed, a smaller number being a part of a larger one.
            None takes all.
        as_nvidia: Shuffle all choices as NVIDIA's tutorial does: one stream of seed 42 through all rows.

    Raises:
        ConfigError: A key is missing that the layout needs, or a subject does not exist.
        DataError: The files are missing or malformed, or there are no questions.
    """
    if settings.layout is BenchmarkLayout.builtin:
        return _builtin(name, settings, seed=seed, limit=limit)
    if settings.source is None:
        raise ConfigError(f"benchmark.{name}.source=null: give the directory or the hub data set of its files")
    files = find_files(settings.source, settings.files, revision=settings.revision)
    questions = _read(files, settings)
    if as_nvidia:
        numbers = Random(_NVIDIA_SEED)
        questions = [shuffled(question, numbers) for question in questions]
    elif settings.shuffle:
        questions = [shuffled(question, Random(f"{seed}:{question.id}")) for question in questions]
    return Benchmark(
        name=name,
        questions=tuple(_drawn(_of_subjects(name, questions, settings.subjects), seed=seed, limit=limit)),
        examples=_examples(name, settings),
        origin={"source": settings.source, "files": {file.name: file_sha256(file) for file in files}},
    )


def _builtin(name: str, settings: BenchmarkSettings, *, seed: int, limit: int | None) -> Benchmark:
    if settings.count is None:
        raise ConfigError(f"benchmark.{name}.count=null: the built-in problems never end; give a number")
    questions = [as_question(problem) for problem in held_out(count=settings.count, seed=seed)][:limit]
    return Benchmark(name=name, questions=tuple(questions), examples={}, origin={"builtin": {"seed": seed}})


def as_question(problem: Problem) -> Question:
    """Return a built-in problem as a question."""
    return Question(
        id=f"{problem.family}/{problem.prompt}",
        text=problem.prompt,
        choices=(),
        answer=problem.answer,
        kind="number",
        subject=problem.family,
    )


def _read(files: Sequence[Any], settings: BenchmarkSettings) -> list[Question]:
    headless = settings.layout is BenchmarkLayout.mmlu  # the authors' CSV files
    questions = [parse_question(row, settings.layout) for row in read_rows(files, header=not headless)]
    repeated = [found for found, count in Counter(question.id for question in questions).items() if count > 1]
    if repeated:
        raise DataError(f"{settings.source}: {len(repeated)} ids occur more than once, such as {repeated[0]!r}")
    return questions


def _of_subjects(name: str, questions: list[Question], subjects: list[str] | None) -> list[Question]:
    known = {question.subject for question in questions}
    if subjects is None:
        return questions
    if unknown := sorted(set(subjects) - known):
        raise ConfigError(
            f"benchmark.{name}.subjects: {', '.join(unknown)} not found; there are {', '.join(sorted(known))}"
        )
    return [question for question in questions if question.subject in subjects]


def _drawn(questions: list[Question], *, seed: int, limit: int | None) -> list[Question]:
    if not questions:
        raise DataError("the benchmark has no questions; check its files and subjects")
    if limit is None or limit >= len(questions):
        return questions
    places = list(range(len(questions)))
    Random(f"{seed}:limit").shuffle(places)  # a smaller limit takes a part of what a larger one takes
    return [questions[place] for place in sorted(places[:limit])]


def _examples(name: str, settings: BenchmarkSettings) -> dict[str, tuple[Question, ...]]:
    """Return the first solved questions of each subject, and under "" the first of all."""
    if not settings.few_shot:
        return {}
    if settings.source is None or not settings.examples:
        raise ConfigError(f"benchmark.{name}.few_shot={settings.few_shot}, but it has no examples; set few_shot=0")
    files = find_files(settings.source, settings.examples, revision=settings.revision)
    solved = _read(files, settings)
    by_subject: dict[str, list[Question]] = {"": solved}
    for question in solved:
        by_subject.setdefault(question.subject, []).append(question)
    return {subject: tuple(found[: settings.few_shot]) for subject, found in by_subject.items()}


def training_questions(settings: EvaluationCallbackSettings, *, seed: int) -> Questions:
    """Return questions and their judge: held-out built-in problems, or a user's own.

    Args:
        settings: Of the callback.
        seed: Of the questions drawn.

    Raises:
        DataError: There are no such questions.
    """
    own = settings.questions is not None
    benchmark = BenchmarkSettings(
        layout=BenchmarkLayout.jsonl if own else BenchmarkLayout.builtin,
        source=settings.questions,
        revision=None,
        files=["*.jsonl"],
        examples=[],
        few_shot=0,
        shuffle=False,
        subjects=None,
        count=settings.problems,
        prompt="{question}",
    )
    questions = load_benchmark("eval", benchmark, seed=seed, limit=settings.problems).questions

    def judge(number: int, mode: Mode, text: str, finished: bool) -> bool:
        extracted = questions[number].extract(split_thinking(text, mode, finished=finished).answer)
        return extracted is not None and questions[number].accepts(extracted)

    return Questions(questions=[question.text for question in questions], judge=judge)
