"""Settings of an evaluation on our copies of the benchmarks, and the answers to them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from nemo_reasoning.config import CONF_DIR, load_settings
from nemo_reasoning.config.evaluate import EvaluateSettings
from nemo_reasoning.evaluation.benchmarks.load import load_benchmark

DATA = Path(__file__).parents[2] / "data" / "benchmarks"
COPIES = {
    "gpqa_diamond": "gpqa",
    "gpqa_main": "gpqa",
    "mmlu": "mmlu",
    "mmlu_nvidia": "mmlu",
    "mmlu_pro": "mmlu_pro",
    "gsm8k": "gsm8k",
    "math500": "math500",
    "aime24": "aime24",
    "aime25": "aime25",
    "jsonl": "jsonl",
}


def evaluate_settings(names: Sequence[str], *overrides: str) -> EvaluateSettings:
    """Return the settings of conf/evaluate.yaml for some benchmarks, read from our copies."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("evaluate", [f"benchmark=[{','.join(names)}]", *overrides])
    settings = load_settings(config, EvaluateSettings)
    for name, found in settings.benchmark.items():
        if name in COPIES:
            found.source = str(DATA / COPIES[name])
    return settings


def gold(settings: EvaluateSettings, **options: Any) -> dict[str, str]:
    """Return the right answer of every question by its text."""
    answers = {}
    for name, one in settings.benchmark.items():
        questions = load_benchmark(name, one, seed=settings.seed, limit=None, **options).questions
        answers |= {question.text: question.answer for question in questions}
    return answers
