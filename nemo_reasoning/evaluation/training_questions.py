"""The questions that a model is asked while it trains."""

from nemo_reasoning.config.evaluate import BenchmarkLayout, BenchmarkSettings, QuizSettings
from nemo_reasoning.evaluation.benchmarks.load import load_benchmark
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.tags import split_thinking
from nemo_reasoning.training.callbacks.base import Questions


def training_questions(settings: QuizSettings, *, seed: int) -> Questions:
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
