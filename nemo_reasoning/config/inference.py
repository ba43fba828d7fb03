"""Settings of recipes/generate.py and recipes/serve.py."""

from dataclasses import dataclass
from enum import Enum

from nemo_reasoning.config import checks
from nemo_reasoning.reasoning.sampling import Sampling

_TENSOR_PARALLEL = {"--tensor-parallel-size", "--tensor_parallel_size", "-tp"}


class EngineKind(Enum):
    """What computes the answers."""

    hf = "hf"
    vllm = "vllm"


class Precision(Enum):
    """Of weights and arithmetic; "auto" is bfloat16 where the processor computes with it."""

    auto = "auto"
    bfloat16 = "bfloat16"
    float32 = "float32"


class Reasoning(Enum):
    """The thinking switch as settings hold it, since OmegaConf holds no `Literal`; the value is a `Mode`."""

    on = "on"
    off = "off"


@dataclass
class EngineSettings:
    """conf/engine."""

    kind: EngineKind
    dtype: Precision
    device: str
    batch_size: int
    context: int | None
    cache_gb: float | None
    tensor_parallel_size: int
    vllm_python: str | None
    vllm_args: list[str]

    def problems(self) -> list[str]:
        """Return the values outside their ranges."""
        names = ("batch_size", "context", "cache_gb", "tensor_parallel_size")
        problems = checks.positive({f"engine.{name}": getattr(self, name) for name in names})
        if self.kind is EngineKind.vllm and self.vllm_python is None:
            problems.append("engine.vllm_python=null: name the interpreter of the environment that holds vLLM")
        if self.kind is EngineKind.hf and self.tensor_parallel_size > 1:
            size = self.tensor_parallel_size
            problems.append(f"engine.tensor_parallel_size={size}: engine=hf has one device; choose engine=vllm, or 1")
        if given := _TENSOR_PARALLEL.intersection(argument.partition("=")[0] for argument in self.vllm_args):
            problems.append(f"engine.vllm_args holds {given.pop()}; set engine.tensor_parallel_size instead")
        return problems


@dataclass
class EffortSettings:
    """Budgets of thinking tokens by level of effort."""

    minimal: int
    low: int
    medium: int
    high: int
    xhigh: int


@dataclass
class ThinkingSettings:
    """conf/thinking."""

    sampling_on: Sampling
    sampling_off: Sampling
    efforts: EffortSettings

    def sampling(self, mode: str) -> Sampling:
        """Return how tokens are drawn in a mode."""
        return self.sampling_on if mode == "on" else self.sampling_off

    def problems(self) -> list[str]:
        """Return the values outside their ranges."""
        samplings = {"sampling_on": self.sampling_on, "sampling_off": self.sampling_off}
        efforts = {f"thinking.efforts.{name}": value for name, value in vars(self.efforts).items()}
        return [
            *(f"thinking.{name}.{problem}" for name, sampling in samplings.items() for problem in sampling.problems()),
            *checks.not_negative(efforts),
        ]


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

    def problems(self) -> list[str]:
        """Return the values outside their ranges."""
        above = {f"limits.{name}": value for name, value in vars(self).items()}
        rest = {key: above.pop(key) for key in ("limits.waiting", "limits.grace_seconds")}
        return [*checks.positive(above), *checks.not_negative(rest)]


@dataclass
class ServeSettings:
    """conf/serve.yaml."""

    checkpoint: str
    name: str | None
    adapters: dict[str, str] | None
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

    minimal = "minimal"
    low = "low"
    medium = "medium"
    high = "high"
    xhigh = "xhigh"


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


def validate_generate(settings: GenerateSettings) -> None:
    """Refuse settings that cannot ask a model.

    Raises:
        ConfigError: Lists every problem found, each with its remedy.
    """
    rest = {name: getattr(settings, name) for name in ("budget", "min_thinking", "temperature")}
    problems = [
        *checks.positive({"max_new_tokens": settings.max_new_tokens, "n": settings.n}),
        *checks.not_negative(rest),
        *_check_question(settings),
        *settings.engine.problems(),
        *settings.thinking.problems(),
    ]
    if settings.top_p is not None and not 0 < settings.top_p <= 1:
        problems.append(f"top_p={settings.top_p}: must be above 0, and 1 at most")
    checks.refuse(problems)


def _check_question(settings: GenerateSettings) -> list[str]:
    problems, asked = [], settings.prompt is not None or settings.input is not None
    if settings.prompt is not None and settings.input is not None:
        problems.append("prompt and input: both are given; give one of them")
    if settings.output is not None and settings.input is None:
        problems.append(f"output={settings.output}: only the answers to a file are written; give input, or no output")
    if settings.scaling is not Scaling.none and not asked:
        problems.append(f"scaling={settings.scaling.value}: a chat takes the first answer; give prompt or input")
    if settings.budget is not None and settings.effort is not None:
        problems.append(f"budget={settings.budget} and effort={settings.effort.value}: give one of them")
    return problems


def validate_serve(settings: ServeSettings) -> None:
    """Refuse settings that cannot serve.

    Raises:
        ConfigError: Lists every problem found, each with its remedy.
    """
    problems = [*settings.limits.problems(), *settings.engine.problems(), *settings.thinking.problems()]
    if not 0 <= settings.port < 2**16:
        problems.append(f"port={settings.port}: must lie between 0 and 65535")
    checks.refuse(problems)
