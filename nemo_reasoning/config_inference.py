"""Typed settings of the recipes that generate and serve; see `nemo_reasoning.config`.

Values live in conf/; these classes hold none. Importing this module loads neither torch nor NeMo.
"""

from dataclasses import dataclass
from enum import Enum


class EngineKind(Enum):
    """What computes the answers."""

    hf = "hf"
    vllm = "vllm"


class Reasoning(Enum):
    """The thinking switch."""

    on = "on"
    off = "off"


@dataclass
class EngineSettings:
    """conf/engine."""

    kind: EngineKind
    dtype: str
    device: str
    batch_size: int
    context: int | None
    cache_gb: float | None
    vllm_python: str | None
    vllm_args: list[str]


@dataclass
class SamplingSettings:
    """How tokens are drawn: temperature 0 takes the likeliest."""

    temperature: float
    top_p: float


@dataclass
class EffortSettings:
    """Budgets of thinking tokens by level of effort."""

    low: int
    medium: int
    high: int


@dataclass
class ThinkingSettings:
    """conf/thinking."""

    sampling_on: SamplingSettings
    sampling_off: SamplingSettings
    efforts: EffortSettings


@dataclass
class ServeLimits:
    """What clients of the service may ask for, one and all together."""

    waiting: int
    max_new_tokens: int
    choices: int
    body_bytes: int
    timeout_seconds: float
    heartbeat_seconds: float
    retry_after_seconds: int
    grace_seconds: float


@dataclass
class ServeSettings:
    """conf/serve.yaml."""

    checkpoint: str
    name: str | None
    adapters: dict[str, str]
    template: str | None
    cache_dir: str
    reasoning: Reasoning
    host: str
    port: int
    api_key_file: str | None
    cors_origins: list[str]
    log_prompts: bool
    engine: EngineSettings
    thinking: ThinkingSettings
    limits: ServeLimits


class Scaling(Enum):
    """How more tokens are spent on a question."""

    none = "none"
    vote = "vote"
    best = "best"
    extend = "extend"


class Effort(Enum):
    """Levels of thinking."""

    low = "low"
    medium = "medium"
    high = "high"


@dataclass
class GenerateSettings:
    """conf/generate.yaml."""

    checkpoint: str
    template: str | None
    cache_dir: str
    prompt: str | None
    input: str | None
    output: str | None
    reasoning: Reasoning
    budget: int | None
    effort: Effort | None
    min_thinking: int
    max_new_tokens: int
    temperature: float | None
    top_p: float | None
    seed: int
    scaling: Scaling
    n: int
    engine: EngineSettings
    thinking: ThinkingSettings
