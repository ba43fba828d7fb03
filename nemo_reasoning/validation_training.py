"""Checks of how a model is trained: each returns the problems it finds, every one with its remedy."""

from nemo_reasoning.config import LORA_TARGETS, PeftScheme, PeftSettings, Recompute, SftSettings, TrainerSettings
from nemo_reasoning.config_optim import Fp8, OptimKind


def check_peft(peft: PeftSettings, trainer: TrainerSettings) -> list[str]:
    """Return what cannot work about an adapter, or the lack of one."""
    if peft.scheme is PeftScheme.none:
        given = {"dim": peft.dim, "alpha": peft.alpha, "dropout": peft.dropout, "target_modules": peft.target_modules}
        return [
            f"peft.{key}={value}: peft=none trains every weight and has no adapter; leave it out, or choose peft=lora"
            for key, value in given.items()
            if value
        ]
    problems = []
    unknown = sorted(set(peft.target_modules) - set(LORA_TARGETS))
    if unknown or not peft.target_modules:
        problems.append(f"peft.target_modules={unknown or '[]'}: choose from {', '.join(LORA_TARGETS)}")
    return problems + (_check_dora(peft, trainer) if peft.scheme is PeftScheme.dora else [])


def _check_dora(peft: PeftSettings, trainer: TrainerSettings) -> list[str]:
    """Return what NeMo's DoRA gets wrong."""
    problems = []
    if peft.dropout > 0:
        problems.append(
            f"peft.dropout={peft.dropout} with peft=dora: NeMo's DoRA normalises the dropped-out input of linear_qkv "
            "and linear_fc1 a second time; set peft.dropout=0"
        )
    if trainer.tensor_model_parallel_size > 1:
        problems.append(
            f"trainer.tensor_model_parallel_size={trainer.tensor_model_parallel_size} with peft=dora: NeMo's DoRA "
            "takes the norm over one rank's share of a weight; set it to 1, or choose peft=lora"
        )
    return problems


def needs_gpu(settings: SftSettings) -> list[str]:
    """Return the settings, with their remedies, that have no meaning without a GPU."""
    trainer, paged = settings.trainer, settings.optim.kind is OptimKind.paged_adamw_8bit
    bound, bounded = f"trainer.memory_fraction={trainer.memory_fraction}", trainer.memory_fraction is not None
    chosen = {
        "trainer.tf32=true": (trainer.tf32, "trainer.tf32=false"),
        "trainer.expandable_segments=true": (trainer.expandable_segments, "trainer.expandable_segments=false"),
        bound: (bounded, "trainer.memory_fraction=null"),
        "optim.kind=paged_adamw_8bit": (paged, "optim=adamw_8bit"),
    }
    return [f"{name} needs a GPU; set {off}" for name, (on, off) in chosen.items() if on]


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


def check_trainer(settings: SftSettings, *, on_cpu: bool, without_te: bool) -> list[str]:
    """Return what cannot work about the trainer on the machine that the settings name, or anywhere.

    Args:
        settings: The run.
        on_cpu: Whether they name a machine without GPU, or do without.
        without_te: Whether they do without Transformer Engine.
    """
    trainer, problems = settings.trainer, []
    if on_cpu:
        problems += needs_gpu(settings)
    if without_te:
        problems += needs_transformer_engine(trainer)
    if trainer.memory_fraction is not None and not 0 < trainer.memory_fraction <= 1:
        problems.append(f"trainer.memory_fraction={trainer.memory_fraction}: must be above 0, and at most 1")
    if trainer.fp8 is not Fp8.none and trainer.precision != "bf16-mixed":
        problems.append(
            f"trainer.fp8={trainer.fp8.value} with trainer.precision={trainer.precision}: FP8 is for products in "
            "bfloat16; set trainer.precision=bf16-mixed"
        )
    return problems + (_check_offload(settings) if trainer.offload_layers > 0 else [])


def _check_offload(settings: SftSettings) -> list[str]:
    """Return what Megatron's TransformerConfig would refuse about offloading, once the model is being built."""
    trainer, shape = settings.trainer, settings.model.architecture
    named = f"trainer.offload_layers={trainer.offload_layers}"
    problems = []
    if shape is not None and trainer.offload_layers >= shape.num_layers:
        problems.append(f"{named}: {settings.model.name} has {shape.num_layers} layers; at least one has to stay")
    if trainer.recompute is not Recompute.none:
        problems.append(
            f"{named} with trainer.recompute={trainer.recompute.value}: Megatron does one or the other; set "
            "trainer.recompute=none"
        )
    if trainer.pipeline_model_parallel_size > 1:
        problems.append(
            f"{named} with trainer.pipeline_model_parallel_size={trainer.pipeline_model_parallel_size}: Megatron "
            "does one or the other; set it to 1"
        )
    return problems
