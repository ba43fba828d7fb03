"""Typed settings of the recipes: what a composed Hydra configuration must look like.

Values live in conf/; these classes hold none, so that each default has one home. Importing this
module loads neither torch nor NeMo.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_reasoning.config_data import DataSettings
from nemo_reasoning.config_evaluation import QuizSettings
from nemo_reasoning.config_optim import Fp8, OptimSettings
from nemo_reasoning.errors import ConfigError

CONF_DIR = Path(__file__).resolve().parents[1] / "conf"
AUTO_BATCH = 0  # what `micro_batch_size: auto` is until training/memory has chosen
LORA_TARGETS = ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2")


class Init(Enum):
    """Where the base weights come from."""

    pretrained = "pretrained"
    random = "random"


class PeftScheme(Enum):
    """How the base model is adapted."""

    lora = "lora"
    qlora = "qlora"  # LoRA on a base in NF4
    dora = "dora"  # weight-decomposed low-rank adaptation
    none = "none"  # every weight is trained


class Accelerator(Enum):
    """What computes."""

    cpu = "cpu"
    gpu = "gpu"


class Recompute(Enum):
    """How many activations are computed again in the backward pass instead of kept."""

    none = "none"
    selective = "selective"
    full = "full"
    auto = "auto"  # until training/memory has chosen


class LoggerBackend(Enum):
    """Where metrics go besides metrics.jsonl."""

    none = "none"
    tensorboard = "tensorboard"
    wandb = "wandb"
    mlflow = "mlflow"


@dataclass
class RopeScaling:
    """Llama-3.1's frequency scaling of the rotary embedding."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_seq_length: int


@dataclass
class Architecture:
    """The shape of a Llama model, enough to plan a run without its weights."""

    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    num_attention_heads: int
    num_query_groups: int
    head_dim: int
    vocab_size: int
    max_seq_length: int
    tie_embeddings: bool
    rope_base: float
    rope_scaling: RopeScaling | None
    norm_epsilon: float


@dataclass
class Recommended:
    """Values that depend on the model's size; other groups refer to them."""

    dim: int
    alpha: int
    dropout: float
    target_modules: list[str]
    lr: float
    full_lr: float  # where every weight is trained
    epochs: float
    seq_length: int
    global_batch_size: int
    eval_interval: int


@dataclass
class ModelSettings:
    """conf/model."""

    name: str
    source: str
    revision: str | None
    init: Init
    dtype: str
    template: str
    architecture: Architecture | None
    recommended: Recommended


@dataclass
class PeftSettings:
    """conf/peft."""

    scheme: PeftScheme
    dim: int
    alpha: float
    dropout: float
    target_modules: list[str]
    rslora: bool

    @property
    def scale(self) -> float:
        """Factor on the adapter's output: alpha / sqrt(dim) with rsLoRA (arXiv 2312.03732), else alpha / dim."""
        return float(self.alpha / (self.dim**0.5 if self.rslora else self.dim))


@dataclass
class HardwareSettings:
    """conf/hardware."""

    name: str
    accelerator: Accelerator
    memory_gb: float | None  # GiB
    devices: int
    precision: str
    micro_batch_size: int
    recompute: Recompute


@dataclass
class TrainerSettings:
    """conf/trainer."""

    epochs: float
    max_steps: int | None
    seq_length: int
    micro_batch_size: int
    global_batch_size: int
    eval_interval: int
    precision: str
    devices: int
    num_nodes: int
    tensor_model_parallel_size: int
    pipeline_model_parallel_size: int
    context_parallel_size: int
    packing: bool
    recompute: Recompute
    offload_layers: int
    fp8: Fp8
    tf32: bool
    expandable_segments: bool
    memory_fraction: float | None
    gc_interval: int | None
    keep_checkpoints: int
    seed: int

    @property
    def data_parallel_size(self) -> int:
        """Number of model replicas."""
        replicas = self.devices * self.num_nodes
        return replicas // (
            self.tensor_model_parallel_size * self.pipeline_model_parallel_size * self.context_parallel_size
        )


@dataclass
class CallbackSettings:
    """conf/callbacks."""

    memory: bool
    throughput: bool
    progress_interval: int
    samples_interval: int
    samples_max_new_tokens: int
    eval: QuizSettings | None


@dataclass
class LoggerSettings:
    """conf/logger."""

    backend: LoggerBackend
    project: str


@dataclass
class BackendSettings:
    """The switches of `nemo_reasoning.backend`: None means as found."""

    cuda: bool | None
    transformer_engine: bool | None


@dataclass
class SftSettings:
    """conf/sft_lora.yaml."""

    name: str
    output_dir: str
    cache_dir: str
    dry_run: bool
    evaluate: int
    backend: BackendSettings
    model: ModelSettings
    data: DataSettings
    peft: PeftSettings
    hardware: HardwareSettings
    trainer: TrainerSettings
    optim: OptimSettings
    callbacks: CallbackSettings
    logger: LoggerSettings


@dataclass
class ExportSettings:
    """conf/export.yaml."""

    checkpoint: str
    formats: list[str] | None
    output_dir: str | None
    dtype: str
    merge_onto: str | None
    verify: bool
    tokenizer_python: str | None


@dataclass
class PrepareSettings:
    """conf/prepare_data.yaml."""

    output_dir: str
    cache_dir: str
    seq_length: int
    preview: int
    model: ModelSettings
    data: DataSettings


Settings = TypeVar("Settings")


def load_settings(config: DictConfig, schema: type[Settings]) -> Settings:
    """Turn a composed configuration into typed settings.

    Args:
        config: What Hydra composed.
        schema: The dataclass it must match.

    Raises:
        ConfigError: A key is unknown, a value is missing, or has the wrong type; the message names it.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True)
        for group in ("hardware", "trainer"):
            if isinstance(plain, dict) and plain.get(group, {}).get("micro_batch_size") == "auto":
                plain[group]["micro_batch_size"] = AUTO_BATCH
        merged = OmegaConf.merge(OmegaConf.structured(schema), plain)
        return cast(Settings, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]  # the other lines describe OmegaConf's own types
        place = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{place}{reason}; `--help` lists the groups and keys") from error


def settings_to_dict(settings: Any) -> dict[str, Any]:
    """Return settings as plain dictionaries, lists and scalars (enums by name), ready for YAML or JSON."""
    plain = OmegaConf.to_container(OmegaConf.structured(settings), enum_to_str=True)
    return cast(dict[str, Any], plain)
