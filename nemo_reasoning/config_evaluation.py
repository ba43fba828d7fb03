"""Typed settings of evaluation: of recipes/evaluate.py, and while training. Values live in conf/."""

from dataclasses import dataclass
from enum import Enum


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


class Reasoning(Enum):
    """Whether the model is to think."""

    on = "on"
    off = "off"


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
class Sampling:
    """How tokens are drawn."""

    temperature: float
    top_p: float


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
    reasoning: list[Reasoning]
    budget: list[int] | None
    samples: int
    limit: int | None
    chunk: int
    seed: int
    output_dir: str | None
    cache_dir: str
    compare: list[str]


@dataclass
class QuizSettings:
    """`eval` of conf/callbacks: questions that the model answers while it trains."""

    every_n_steps: int
    questions: str | None
    problems: int
    max_new_tokens: int
    patience: int | None
