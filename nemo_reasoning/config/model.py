"""Settings of conf/model and conf/peft: the base model, and how it is adapted."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from nemo_reasoning.config import checks
from nemo_reasoning.config.adapter import adapter_config
from nemo_reasoning.errors import ConfigError

DTYPES = ("float32", "bfloat16")
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


class Start(Enum):
    """What becomes of the adapter that `start_from` names."""

    adapter = "adapter"  # it is trained further
    merged = "merged"  # it is merged into the base, and a fresh one is trained


@dataclass
class RopeScaling:
    """Llama-3.1's frequency scaling of the rotary embedding."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_seq_length: int


@dataclass
class Architecture:
    """The shape of a model, enough to plan a run without its weights.

    Attributes:
        family: What its config.json calls `model_type`; one of models/families.
        qkv_bias: Whether queries, keys and values have a bias.
        qk_norm: Whether the heads of queries and keys are normalized.
    """

    family: str
    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    num_attention_heads: int
    num_query_groups: int
    head_dim: int
    qkv_bias: bool
    qk_norm: bool
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

    def problems(self) -> list[str]:
        """Return what cannot be loaded or built, each with its remedy."""
        found = []
        if self.dtype not in DTYPES:
            found.append(f"model.dtype={self.dtype}: choose one of {', '.join(DTYPES)}")
        if self.architecture is None and self.init is Init.random:
            found.append("model.init=random needs model.architecture, which is null; choose a listed model")
        return found


@dataclass
class PeftSettings:
    """conf/peft."""

    scheme: PeftScheme
    dim: int
    alpha: float
    dropout: float
    target_modules: list[str]
    rslora: bool
    start_from: str | None
    start: Start

    @property
    def merges_start(self) -> bool:
        """Whether an adapter is merged into the base before training."""
        return self.start_from is not None and self.start is Start.merged

    @property
    def scale(self) -> float:
        """Factor on the adapter's output: alpha / sqrt(dim) with rsLoRA (arXiv 2312.03732), else alpha / dim."""
        return float(self.alpha / (self.dim**0.5 if self.rslora else self.dim))

    def problems(self) -> list[str]:
        """Return what cannot work about an adapter, or the lack of one, each with its remedy."""
        found = checks.below_one({"peft.dropout": self.dropout})
        if self.scheme is PeftScheme.none:
            given = {name: getattr(self, name) for name in ("dim", "alpha", "dropout", "target_modules")}
            if self.start_from is not None and self.start is Start.adapter:
                found.append(f"peft.start_from={self.start_from} with peft=none: set peft.start=merged")
            return (
                found
                + self._start_problems()
                + [
                    f"peft.{key}={value}: peft=none trains every weight and has no adapter; leave it out, or choose "
                    "peft=lora"
                    for key, value in given.items()
                    if value
                ]
            )
        found += checks.positive({"peft.dim": self.dim, "peft.alpha": self.alpha})
        unknown = sorted(set(self.target_modules) - set(LORA_TARGETS))
        if unknown or not self.target_modules:
            found.append(f"peft.target_modules={unknown or '[]'}: choose from {', '.join(LORA_TARGETS)}")
        if self.scheme is PeftScheme.dora and self.dropout > 0:
            found.append(
                f"peft.dropout={self.dropout} with peft=dora: NeMo's DoRA normalises the dropped-out input of "
                "linear_qkv and linear_fc1 a second time; set peft.dropout=0"
            )
        return found + self._start_problems()

    def _start_problems(self) -> list[str]:
        """Return what keeps training from starting from an adapter, and where the settings differ from its own."""
        if self.start_from is None:
            return []
        try:
            config = adapter_config(self.start_from)
        except ConfigError as error:
            return str(error).splitlines()
        if self.start is Start.merged or self.scheme is PeftScheme.none:
            return []
        if self.scheme is PeftScheme.dora:
            return ["peft.start_from with peft=dora: only LoRA is gone on with; set peft.start=merged, or peft=lora"]
        wanted: dict[str, Any] = {"dim": self.dim, "alpha": self.alpha, "rslora": self.rslora}
        own = {key: getattr(config, key) for key in wanted} | {"target_modules": sorted(config.target_modules)}
        wanted["target_modules"] = sorted(self.target_modules)
        return [
            f"peft.{key}={wanted[key]}, but the adapter in peft.start_from has {own[key]}; leave it out, or set "
            "peft.start=merged for a fresh adapter"
            for key in wanted
            if wanted[key] != own[key]
        ]
