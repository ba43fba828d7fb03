"""Settings of conf/hardware, conf/trainer and conf/optim: what computes, in which steps."""

from dataclasses import dataclass, replace
from enum import Enum
from math import prod
from typing import Any

from nemo_reasoning.config import checks

AUTO_BATCH = 0  # what `micro_batch_size: auto` is until training/memory has chosen; nobody may write 0 for it
AUTO_LAYOUT = -(10**9)  # likewise of the ranks that share a model
LAYOUT = ("tensor_model_parallel_size", "pipeline_model_parallel_size")
OPEN_SIZES = {"micro_batch_size": AUTO_BATCH, **dict.fromkeys(LAYOUT, AUTO_LAYOUT)}  # that may be auto
PRECISIONS = ("bf16-mixed", "32")
_PARALLEL = (*LAYOUT, "context_parallel_size")


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
class HardwareSettings:
    """conf/hardware."""

    name: str
    accelerator: Accelerator
    gpu: str | None  # as nvidia-smi names it
    memory_gb: float | None  # GiB
    price_per_hour: float | None  # of a GPU
    devices: int
    precision: str
    micro_batch_size: int
    recompute: Recompute

    def problems(self) -> list[str]:
        """Return the values outside their ranges."""
        return checks.not_negative({"hardware.price_per_hour": self.price_per_hour})


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

    def problems(self) -> list[str]:
        """Return the values outside their ranges."""
        return [
            *checks.positive({"optim.lr": self.lr}),
            *checks.not_negative({"optim.weight_decay": self.weight_decay, "optim.clip_grad": self.clip_grad}),
            *checks.shares({"optim.min_lr_ratio": self.min_lr_ratio}),
            *checks.below_one({f"optim.{key}": getattr(self, key) for key in ("warmup_ratio", "beta1", "beta2")}),
        ]


@dataclass
class TrainerSettings:
    """conf/trainer."""

    epochs: float
    max_steps: int | None
    hours: float | None
    max_hours: float | None
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
    sequence_parallel: bool
    distributed_optimizer: bool
    packing: bool
    recompute: Recompute
    offload_layers: int
    fp8: Fp8
    tf32: bool
    expandable_segments: bool
    memory_fraction: float | None
    gc_interval: int | None
    deterministic: bool
    keep_checkpoints: int
    max_skipped_steps: int
    peer_timeout: float | None
    seed: int

    @property
    def data_parallel_size(self) -> int:
        """Number of model replicas; of a layout that is still to be chosen, the most."""
        sizes: list[int] = [getattr(self, name) for name in _PARALLEL]
        return self.devices * self.num_nodes // prod(max(1, size) for size in sizes)

    @property
    def layout_is_open(self) -> bool:
        """Whether it is still to be chosen how many ranks share the model."""
        return AUTO_LAYOUT in (self.tensor_model_parallel_size, self.pipeline_model_parallel_size)

    def problems(self) -> list[str]:
        """Return what cannot work whatever the model and the machine, each with its remedy.

        What is still to be chosen counts as 1, with which most else works; how a step is shared out is looked at then.
        """
        still_open: dict[str, Any] = {name: 1 for name, auto in OPEN_SIZES.items() if getattr(self, name) == auto}
        return replace(self, **still_open)._problems(open_layout=self.layout_is_open)

    def _problems(self, *, open_layout: bool) -> list[str]:
        found = self._outside_ranges()
        if self.hours is not None and self.max_steps is not None:
            found.append(f"trainer.hours={self.hours} and trainer.max_steps={self.max_steps}: give one of them")
        if self.precision not in PRECISIONS:
            found.append(f"trainer.precision={self.precision}: choose one of {', '.join(PRECISIONS)}")
        if self.memory_fraction is not None and not 0 < self.memory_fraction <= 1:
            found.append(f"trainer.memory_fraction={self.memory_fraction}: must be above 0, and at most 1")
        if self.fp8 is not Fp8.none and self.precision != "bf16-mixed":
            found.append(
                f"trainer.fp8={self.fp8.value} with trainer.precision={self.precision}: FP8 is for products in "
                "bfloat16; set trainer.precision=bf16-mixed"
            )
        if self.fp8 is Fp8.delayed and self.deterministic:
            found.append(
                "trainer.fp8=delayed with trainer.deterministic=true: adapter checkpoints lack the past maxima that it "
                "scales by, so a continued run differs; set trainer.fp8=tensorwise"
            )
        if self.packing and self.context_parallel_size > 1:
            found.append(
                f"trainer.packing=true with trainer.context_parallel_size={self.context_parallel_size}: it cuts every "
                "row into equal parts, and packed rows are of any length; set trainer.packing=false"
            )
        if self.sequence_parallel and self.tensor_model_parallel_size == 1 and not open_layout:
            found.append(
                "trainer.sequence_parallel=true with trainer.tensor_model_parallel_size=1: tensor-parallel ranks share "
                "the positions, and there is one; set trainer.sequence_parallel=false"
            )
        return found if open_layout else found + self._batch_problems()

    def _outside_ranges(self) -> list[str]:
        counted = (
            "epochs",
            "max_steps",
            "hours",
            "max_hours",
            "seq_length",
            "global_batch_size",
            "eval_interval",
            "gc_interval",
            "peer_timeout",
        )
        above = {f"trainer.{name}": getattr(self, name) for name in (*counted, "gc_interval")}
        rest = {
            f"trainer.{name}": getattr(self, name)
            for name in ("keep_checkpoints", "max_skipped_steps", "offload_layers")
        }
        return [*checks.positive({**above, **self._distribution()}), *checks.not_negative(rest)]

    def _distribution(self) -> dict[str, int]:
        """Return the settings that share the work out to devices."""
        names = ("micro_batch_size", "devices", "num_nodes", *_PARALLEL)
        return {f"trainer.{name}": getattr(self, name) for name in names}

    def _batch_problems(self) -> list[str]:
        if min(self.global_batch_size, *self._distribution().values()) <= 0:
            return []  # reported with the ranges
        sizes = [getattr(self, name) for name in _PARALLEL]
        processes, parallel = self.devices * self.num_nodes, prod(sizes)
        if processes % parallel:
            return [
                f"trainer.devices={self.devices} x num_nodes={self.num_nodes} cannot be split into model-parallel "
                f"groups of {' x '.join(str(size) for size in sizes)} = {parallel}; make it a multiple"
            ]
        together = self.micro_batch_size * self.data_parallel_size
        if self.global_batch_size % together:
            return [
                f"trainer.global_batch_size={self.global_batch_size} is not a multiple of {together} = "
                f"micro_batch_size {self.micro_batch_size} x {self.data_parallel_size} data-parallel replicas; "
                "make it one"
            ]
        return []


def needs_transformer_engine(trainer: TrainerSettings) -> list[str]:
    """Return the settings, with their remedies, that Megatron has through Transformer Engine alone."""
    chosen = {
        f"offload_layers={trainer.offload_layers}": (trainer.offload_layers > 0, "offload_layers=0"),
        f"fp8={trainer.fp8.value}": (trainer.fp8 is not Fp8.none, "fp8=none"),
    }
    return [
        f"trainer.{name} needs GPUs with Transformer Engine (NVIDIA's container); set trainer.{off}"
        for name, (on, off) in chosen.items()
        if on
    ]
