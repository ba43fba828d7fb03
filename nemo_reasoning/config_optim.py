"""Typed settings of the optimiser and of its arithmetic; values live in conf/."""

from dataclasses import dataclass
from enum import Enum


class Fp8(Enum):
    """How Transformer Engine scales FP8 operands."""

    none = "none"
    delayed = "delayed"
    tensorwise = "tensorwise"


class OptimKind(Enum):
    """Which implementation of AdamW updates the weights."""

    adamw = "adamw"
    fused_adamw = "fused_adamw"
    adamw_8bit = "adamw_8bit"
    paged_adamw_8bit = "paged_adamw_8bit"

    @property
    def is_8bit(self) -> bool:
        """Whether its moments have 8 bits."""
        return self in (OptimKind.adamw_8bit, OptimKind.paged_adamw_8bit)


@dataclass
class OptimSettings:
    """conf/optim."""

    kind: OptimKind
    lr: float
    min_lr_ratio: float
    warmup_ratio: float
    weight_decay: float
    beta1: float
    beta2: float
    clip_grad: float
