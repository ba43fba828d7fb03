"""Checks across settings, made before NeMo is imported or a weight is loaded."""

from collections.abc import Mapping

from nemo_reasoning.config import LORA_TARGETS, Accelerator, PrepareSettings, SftSettings
from nemo_reasoning.config_data import DataSettings, DataSource
from nemo_reasoning.errors import ConfigError

PRECISIONS = ("bf16-mixed", "32")
DTYPES = ("float32", "bfloat16")


def validate(settings: SftSettings) -> None:
    """Refuse settings that cannot train.

    Raises:
        ConfigError: Lists every problem found, each with its remedy.
    """
    _refuse(
        [
            *_check_choices(settings),
            *_check_ranges(settings),
            *_check_data(settings.data),
            *_check_batches(settings),
            *_check_model(settings),
            *_check_machine(settings),
        ]
    )


def validate_prepare(settings: PrepareSettings) -> None:
    """Refuse settings that cannot prepare data.

    Raises:
        ConfigError: Lists every problem found, each with its remedy.
    """
    sizes = _not_positive({"seq_length": settings.seq_length})
    shown = [f"preview={settings.preview}: must not be below 0"] if settings.preview < 0 else []
    _refuse([*sizes, *shown, *_check_data(settings.data)])


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError("\n".join(f"- {problem}" for problem in problems))


def _check_choices(settings: SftSettings) -> list[str]:
    problems = []
    if settings.trainer.precision not in PRECISIONS:
        problems.append(f"trainer.precision={settings.trainer.precision}: choose one of {', '.join(PRECISIONS)}")
    if settings.model.dtype not in DTYPES:
        problems.append(f"model.dtype={settings.model.dtype}: choose one of {', '.join(DTYPES)}")
    unknown = sorted(set(settings.peft.target_modules) - set(LORA_TARGETS))
    if unknown or not settings.peft.target_modules:
        problems.append(f"peft.target_modules={unknown or '[]'}: choose from {', '.join(LORA_TARGETS)}")
    return problems


def _check_ranges(settings: SftSettings) -> list[str]:
    positive = {
        "peft.dim": settings.peft.dim,
        "peft.alpha": settings.peft.alpha,
        "optim.lr": settings.optim.lr,
        "trainer.epochs": settings.trainer.epochs,
        "trainer.seq_length": settings.trainer.seq_length,
        "trainer.micro_batch_size": settings.trainer.micro_batch_size,
        "trainer.global_batch_size": settings.trainer.global_batch_size,
        "trainer.eval_interval": settings.trainer.eval_interval,
        "trainer.devices": settings.trainer.devices,
        "trainer.num_nodes": settings.trainer.num_nodes,
        "trainer.tensor_model_parallel_size": settings.trainer.tensor_model_parallel_size,
        "trainer.pipeline_model_parallel_size": settings.trainer.pipeline_model_parallel_size,
        "trainer.context_parallel_size": settings.trainer.context_parallel_size,
        "callbacks.progress_interval": settings.callbacks.progress_interval,
    }
    shares = {
        "peft.dropout": settings.peft.dropout,
        "optim.min_lr_ratio": settings.optim.min_lr_ratio,
        "optim.warmup_ratio": settings.optim.warmup_ratio,
    }
    if settings.trainer.max_steps is not None:
        positive["trainer.max_steps"] = settings.trainer.max_steps
    return _not_positive(positive) + _no_shares(shares)


def _not_positive(values: Mapping[str, float]) -> list[str]:
    return [f"{key}={value}: must be above 0" for key, value in values.items() if value <= 0]


def _no_shares(values: Mapping[str, float]) -> list[str]:
    return [f"{key}={value}: must lie between 0 and 1" for key, value in values.items() if not 0 <= value <= 1]


def _check_data(data: DataSettings) -> list[str]:
    filters = data.filters
    optional = {
        "data.rows": data.rows,
        "data.workers": data.workers,
        "data.filters.max_tokens": filters.max_tokens,
        "data.filters.max_completion_tokens": filters.max_completion_tokens,
        **{f"data.subsets.{name}": rows for name, rows in data.subsets.items()},
    }
    sizes = {
        "data.block_kb": data.block_kb,
        "data.shard_mb": data.shard_mb,
        "data.packing_window": data.packing_window,
        "data.filters.overlap_words": filters.overlap_words,
        **{key: value for key, value in optional.items() if value is not None},
    }
    shares = {
        "data.thinking_off_share": data.thinking_off_share,
        "data.validation_share": data.validation_share,
        "data.max_quarantined_share": data.max_quarantined_share,
        "data.filters.language_confidence": filters.language_confidence,
        "data.filters.near_duplicates": filters.near_duplicates or 0,
    }
    empty = data.source is DataSource.nemotron and not data.subsets
    asked = ["data.subsets={}: name at least one, such as data.subsets={math: 1000}"] if empty else []
    return _not_positive(sizes) + _no_shares(shares) + asked


def _check_batches(settings: SftSettings) -> list[str]:
    trainer = settings.trainer
    parallel = trainer.tensor_model_parallel_size * trainer.pipeline_model_parallel_size * trainer.context_parallel_size
    processes = trainer.devices * trainer.num_nodes
    if parallel < 1 or processes % parallel:
        return [f"{processes} devices cannot be split into model-parallel groups of {parallel}"]
    together = trainer.micro_batch_size * trainer.data_parallel_size
    if together > 0 and trainer.global_batch_size % together:
        return [
            f"trainer.global_batch_size={trainer.global_batch_size} is not a multiple of micro_batch_size "
            f"{trainer.micro_batch_size} x {trainer.data_parallel_size} data-parallel replicas = {together}"
        ]
    return []


def _check_model(settings: SftSettings) -> list[str]:
    shape, trainer = settings.model.architecture, settings.trainer
    if shape is None:
        return []
    problems = []
    if trainer.seq_length > shape.max_seq_length:
        problems.append(
            f"trainer.seq_length={trainer.seq_length} exceeds the {shape.max_seq_length} tokens of "
            f"{settings.model.name}; lower it"
        )
    tensor, pipeline = trainer.tensor_model_parallel_size, trainer.pipeline_model_parallel_size
    for label, count in (("attention heads", shape.num_attention_heads), ("KV groups", shape.num_query_groups)):
        if tensor > 0 and count % tensor:
            problems.append(f"trainer.tensor_model_parallel_size={tensor} does not divide the {count} {label}")
    if pipeline > 0 and shape.num_layers % pipeline:
        problems.append(
            f"trainer.pipeline_model_parallel_size={pipeline} does not divide the {shape.num_layers} layers"
        )
    return problems


def _check_machine(settings: SftSettings) -> list[str]:
    on_cpu = settings.hardware.accelerator is Accelerator.cpu or settings.backend.cuda is False
    problems = []
    if on_cpu and settings.trainer.context_parallel_size > 1:
        problems.append("trainer.context_parallel_size above 1 needs GPUs with Transformer Engine; set it to 1")
    if settings.dry_run and settings.evaluate:
        problems.append("dry_run=true loads nothing, so nothing can be evaluated; set evaluate=0")
    return problems
