"""Settings of recipes/evaluate.py, and of the evaluation while training."""

from dataclasses import dataclass
from enum import Enum

from nemo_reasoning.config import checks
from nemo_reasoning.config.inference import EngineSettings, Reasoning
from nemo_reasoning.reasoning.sampling import Sampling


class BenchmarkLayout(Enum):
    """How the files of a benchmark are laid out."""

    builtin = "builtin"
    jsonl = "jsonl"
    gpqa = "gpqa"
    mmlu = "mmlu"
    mmlu_pro = "mmlu_pro"
    gsm8k = "gsm8k"
    math = "math"
    lm_eval = "lm_eval"


class ProtocolName(Enum):
    """How questions are put and answers taken."""

    ours = "ours"
    nvidia = "nvidia"


@dataclass
class BenchmarkSettings:
    """conf/benchmark."""

    layout: BenchmarkLayout
    source: str | None
    revision: str | None
    files: list[str]
    examples: list[str]
    few_shot: int
    shuffle: bool
    subjects: list[str] | None
    count: int | None
    prompt: str


@dataclass
class ProtocolSettings:
    """conf/protocol."""

    name: ProtocolName
    max_tokens: int
    thinking_on: Sampling
    thinking_off: Sampling

    def sampling(self, mode: str) -> Sampling:
        """Return how tokens are drawn in a mode."""
        return self.thinking_on if mode == "on" else self.thinking_off


@dataclass
class EvaluateSettings:
    """conf/evaluate.yaml."""

    checkpoint: str | None
    base: bool
    template: str | None
    url: str | None
    model_name: str | None
    api_key_variable: str
    concurrency: int
    benchmark: dict[str, BenchmarkSettings]
    protocol: ProtocolSettings
    engine: EngineSettings
    reasoning: list[Reasoning]
    budget: list[int] | None
    samples: int
    limit: int | None
    seed: int
    output_dir: str | None
    cache_dir: str
    compare: list[str]


def validate(settings: EvaluateSettings) -> None:
    """Refuse settings that cannot be measured.

    Raises:
        ConfigError: Lists every problem found, each with its remedy.
    """
    counts = {name: getattr(settings, name) for name in ("samples", "concurrency", "limit")}
    problems = checks.positive({**counts, "protocol.max_tokens": settings.protocol.max_tokens})
    problems += settings.engine.problems() if settings.url is None else []
    problems += [] if settings.compare else _model_problems(settings)
    if not settings.benchmark:
        problems.append("benchmark=[]: choose at least one")
    if not settings.reasoning:
        problems.append("reasoning=[]: choose on, off or both")
    if settings.budget is not None and (not settings.budget or min(settings.budget) < 0):
        problems.append(f"budget={settings.budget}: give null, or thinking tokens from 0 upwards")
    greedy = [mode.value for mode in settings.reasoning if settings.protocol.sampling(mode.value).temperature == 0]
    if settings.samples > 1 and greedy:
        problems.append(
            f"samples={settings.samples}: with temperature 0 all samples are equal; set "
            + " and ".join(f"protocol.thinking_{mode}.temperature" for mode in greedy)
        )
    checks.refuse(problems)


def _model_problems(settings: EvaluateSettings) -> list[str]:
    """Return why no model, or more than one, is named."""
    if (settings.checkpoint is None) == (settings.url is None):
        return ["give either checkpoint=, such as outputs/<name>, or url= and model_name="]
    if settings.url is None:
        return []
    problems = []
    if not settings.url.startswith(("http://", "https://")):
        problems.append(f"url={settings.url}: begin with http:// or https://, as in http://localhost:8000/v1")
    if settings.model_name is None:
        problems.append("model_name=null: give the name by which the server at url knows the model")
    return problems


@dataclass
class EvaluationCallbackSettings:
    """`eval` of conf/callbacks: questions that the model answers while it trains."""

    every_n_steps: int
    questions: str | None
    problems: int
    max_new_tokens: int
    patience: int | None
