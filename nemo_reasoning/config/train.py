"""Settings of recipes/sft_lora.py, and what cannot train: checked before NeMo is imported or a weight is loaded."""

from dataclasses import dataclass
from enum import Enum
from math import gcd

from nemo_reasoning.config import checks
from nemo_reasoning.config.data import DataSettings, DataSource
from nemo_reasoning.config.evaluate import EvaluationCallbackSettings
from nemo_reasoning.config.launch import LaunchSettings
from nemo_reasoning.config.loss import LossSettings
from nemo_reasoning.config.model import ModelSettings, PeftScheme, PeftSettings
from nemo_reasoning.config.trainer import (
    Accelerator,
    HardwareSettings,
    OptimKind,
    OptimSettings,
    Recompute,
    TrainerSettings,
    needs_transformer_engine,
)


class LoggerBackend(Enum):
    """Where metrics go besides metrics.jsonl."""

    none = "none"
    tensorboard = "tensorboard"
    wandb = "wandb"
    mlflow = "mlflow"


@dataclass
class CallbackSettings:
    """conf/callbacks."""

    memory: bool
    throughput: bool
    progress_interval: int
    samples_interval: int
    samples_max_new_tokens: int
    eval: EvaluationCallbackSettings | None

    def problems(self) -> list[str]:
        """Return the values outside their ranges."""
        above = ("progress_interval", "samples_max_new_tokens")
        return [
            *checks.positive({f"callbacks.{name}": getattr(self, name) for name in above}),
            *checks.not_negative({"callbacks.samples_interval": self.samples_interval}),
        ]


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
    restart: bool
    evaluate: int
    evaluate_before: int | None
    backend: BackendSettings
    model: ModelSettings
    data: DataSettings
    peft: PeftSettings
    loss: LossSettings
    hardware: HardwareSettings
    trainer: TrainerSettings
    optim: OptimSettings
    callbacks: CallbackSettings
    logger: LoggerSettings
    launch: LaunchSettings

    @property
    def measured_before(self) -> int:
        """Problems that the base model is asked."""
        return self.evaluate if self.evaluate_before is None else self.evaluate_before

    @property
    def held_dtype(self) -> str:
        """Name of the dtype to which the base's weights are rounded: the lower of the stored and the run's own."""
        return "bfloat16" if self.parameter_dtype == "bfloat16" else self.model.dtype

    @property
    def parameter_dtype(self) -> str:
        """Name of the dtype in which training holds all weights, adapters too; each was rounded to it when loaded."""
        return "bfloat16" if self.trainer.precision == "bf16-mixed" else "float32"


def problems(settings: SftSettings) -> list[str]:
    """Return what cannot train, whatever is chosen where the settings say `auto`, each with its remedy."""
    return [
        *settings.model.problems(),
        *settings.data.problems(),
        *settings.peft.problems(),
        *settings.loss.problems(),
        *settings.trainer.problems(),
        *settings.hardware.problems(),
        *settings.optim.problems(),
        *settings.callbacks.problems(),
        *settings.launch.problems(),
        *settings.launch.contradictions(num_nodes=settings.trainer.num_nodes, restart=settings.restart),
        *_check_command(settings),
        *_check_loss(settings),
        *_check_layout(settings),
        *_check_model(settings),
        *_check_machine(settings),
    ]


def validate(settings: SftSettings) -> None:
    """Refuse settings that cannot train.

    Raises:
        ConfigError: Lists every problem found, each with its remedy.
    """
    checks.refuse(problems(settings))


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


def _check_command(settings: SftSettings) -> list[str]:
    problems = checks.not_negative({"evaluate": settings.evaluate})
    before = settings.evaluate_before
    if before is not None and not 1 <= before <= settings.evaluate:
        problems.append(f"evaluate_before={before} with evaluate={settings.evaluate}: give 1 to evaluate, or null")
    if settings.dry_run and settings.evaluate and not settings.launch.starts_elsewhere:
        problems.append("dry_run=true loads nothing, so nothing can be evaluated; set evaluate=0")
    if not settings.data.messages:
        problems.append("data.messages=false: training shows its samples from validation.jsonl; leave it true")
    return problems


def _check_layout(settings: SftSettings) -> list[str]:
    """Return what ranks that hold a part of the model, or of a row, cannot do."""
    trainer = settings.trainer
    sizes = {name: getattr(trainer, name) for name in ("pipeline_model_parallel_size", "context_parallel_size")}
    if settings.callbacks.eval is None:
        return []
    return [
        f"trainer.{name}={size} with callbacks.eval: a rank that answers while it trains holds all layers and whole "
        "rows; set it to 1, or callbacks=default"
        for name, size in sizes.items()
        if size > 1
    ]


def _check_loss(settings: SftSettings) -> list[str]:
    """Return what keeps pairs of answers from being compared."""
    if not settings.loss.pairs:
        return []
    trainer, peft = settings.trainer, settings.peft
    pipeline, context = trainer.pipeline_model_parallel_size, trainer.context_parallel_size
    whole = "one rank has to hold a whole forward pass; set it to 1"
    excluded = {
        f"peft={peft.scheme.value}": (
            peft.scheme is PeftScheme.none,
            "its reference is the model without its adapter; choose peft=lora",
        ),
        "trainer.packing=false": (not trainer.packing, "both answers lie in one row; set it to true"),
        f"trainer.pipeline_model_parallel_size={pipeline}": (pipeline > 1, whole),
        f"trainer.context_parallel_size={context}": (context > 1, whole),
        "peft.start=adapter": (
            peft.start_from is not None and not peft.merges_start,
            "the reference would be the base instead of where the stage begins; set peft.start=merged",
        ),
    }
    problems = [f"{name} with loss=dpo: {why}" for name, (found, why) in excluded.items() if found]
    if settings.data.source is not DataSource.jsonl:
        problems.append("loss=dpo compares answers in rows of your own: data=jsonl data.paths=[pairs.jsonl]")
    return problems


def _check_model(settings: SftSettings) -> list[str]:
    """Return where the trainer asks for what the model's shape does not allow."""
    shape, trainer, name = settings.model.architecture, settings.trainer, settings.model.name
    if shape is None:
        return []
    problems = []
    if trainer.seq_length > shape.max_seq_length:
        problems.append(
            f"trainer.seq_length={trainer.seq_length} exceeds the {shape.max_seq_length} tokens of {name}; lower it"
        )
    if settings.peft.scheme is PeftScheme.dora and shape.qkv_bias and "linear_qkv" in settings.peft.target_modules:
        problems.append(
            f"peft=dora adapts linear_qkv of {name}, which has a bias, and NeMo's DoRA scales the bias too; choose "
            "peft=lora, or leave linear_qkv out of peft.target_modules"
        )
    heads, groups, layers = shape.num_attention_heads, shape.num_query_groups, shape.num_layers
    width, vocabulary = shape.ffn_hidden_size, shape.vocab_size
    shared = f"{heads} attention heads, {groups} KV groups, {width} MLP channels and {vocabulary} tokens"
    for key, parts, divisible in (
        ("tensor_model_parallel_size", shared, gcd(heads, groups, width, vocabulary)),
        ("pipeline_model_parallel_size", f"{layers} layers", layers),
    ):
        size = getattr(trainer, key)
        if size > 0 and divisible % size:
            choices = ", ".join(str(number) for number in range(1, divisible + 1) if divisible % number == 0)
            problems.append(f"trainer.{key}={size} does not divide the {parts} of {name}; choose one of {choices}")
    return problems


def backend_in_use(settings: SftSettings) -> BackendSettings:
    """Return the backend's switches as device and scheme leave them: False is done without, None is as found.

    The layers that hold NF4 weights are torch's, and Transformer Engine's need CUDA.
    """
    cuda = False if settings.hardware.accelerator is Accelerator.cpu else settings.backend.cuda
    without_te = cuda is False or settings.peft.scheme is PeftScheme.qlora
    return BackendSettings(cuda=cuda, transformer_engine=False if without_te else settings.backend.transformer_engine)


def _check_machine(settings: SftSettings) -> list[str]:
    """Return what the machine that the settings name, or the scheme, cannot compute."""
    wanted, trainer, used = settings.backend, settings.trainer, backend_in_use(settings)
    on_cpu = settings.hardware.accelerator is Accelerator.cpu
    quantised = settings.peft.scheme is PeftScheme.qlora
    problems = needs_gpu(settings) if used.cuda is False else []
    if on_cpu and wanted.cuda:
        problems.append(f"backend.cuda=true contradicts hardware={settings.hardware.name}; choose one of conf/hardware")
    if quantised and wanted.transformer_engine:
        problems.append(
            "backend.transformer_engine=true with peft=qlora: its linears cannot hold NF4 weights; set it to null"
        )
    if used.transformer_engine is False:
        problems += needs_transformer_engine(trainer)
        if trainer.context_parallel_size > 1:
            problems.append(
                f"trainer.context_parallel_size={trainer.context_parallel_size} needs GPUs with Transformer Engine; "
                "set it to 1"
            )
    if trainer.distributed_optimizer and settings.optim.kind is not OptimKind.adamw:
        problems.append(
            f"trainer.distributed_optimizer=true with optim.kind={settings.optim.kind.value}: Megatron shares out the "
            "state of its own Adam alone; set optim=adamw"
        )
    tensor, dim = trainer.tensor_model_parallel_size, settings.peft.dim
    if settings.peft.scheme is not PeftScheme.none and tensor > 0 and dim % tensor:
        problems.append(
            f"peft.dim={dim} with trainer.tensor_model_parallel_size={tensor}: each of these ranks holds an equal "
            f"share of an adapter; make it a multiple of {tensor}"
        )
    if settings.peft.scheme is PeftScheme.dora and trainer.tensor_model_parallel_size > 1:
        problems.append(
            f"trainer.tensor_model_parallel_size={trainer.tensor_model_parallel_size} with peft=dora: NeMo's DoRA "
            "takes the norm over one rank's share of a weight; set it to 1, or choose peft=lora"
        )
    return problems + (_check_offload(settings) if trainer.offload_layers > 0 else [])


def _check_offload(settings: SftSettings) -> list[str]:
    """Return what Megatron's TransformerConfig would refuse about offloading, once the model is being built."""
    trainer, shape = settings.trainer, settings.model.architecture
    named = f"trainer.offload_layers={trainer.offload_layers}"
    problems = []
    if shape is not None and trainer.offload_layers >= shape.num_layers:
        problems.append(f"{named}: {settings.model.name} has {shape.num_layers} layers; at least one has to stay")
    if trainer.recompute not in (Recompute.none, Recompute.auto):
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
