"""Checks across settings, made before NeMo is imported or a weight is loaded."""

from collections.abc import Callable, Mapping
from math import gcd, inf, prod

from nemo_reasoning.config import Accelerator, Init, PeftScheme, PrepareSettings, SftSettings, TrainerSettings
from nemo_reasoning.config_data import DataSettings, DataSource
from nemo_reasoning.config_inference import EngineSettings, GenerateSettings, Scaling, ServeSettings, ThinkingSettings
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.validation_training import check_peft, check_trainer

PRECISIONS = ("bf16-mixed", "32")
DTYPES = ("float32", "bfloat16")
_PARALLEL = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")


def validate(settings: SftSettings) -> None:
    """Refuse settings that cannot train.

    Raises:
        ConfigError: Lists every problem found, each with its remedy.
    """
    _refuse(
        [
            *_check_choices(settings),
            *_check_ranges(settings),
            *check_peft(settings.peft, settings.trainer),
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
    _refuse(
        [
            *_outside({"seq_length": settings.seq_length}, "must be above 0", lambda value: value > 0),
            *_outside({"preview": settings.preview}, "must be 0 or above", lambda value: value >= 0),
            *_check_data(settings.data),
        ]
    )


def validate_generate(settings: GenerateSettings) -> None:
    """Refuse settings that cannot ask a model.

    Raises:
        ConfigError: Lists every problem found, each with its remedy.
    """
    positive = {"max_new_tokens": settings.max_new_tokens, "n": settings.n}
    not_negative = {
        "budget": settings.budget,
        "min_thinking": settings.min_thinking,
        "temperature": settings.temperature,
    }
    _refuse(
        [
            *_outside(positive, "must be above 0", lambda value: value > 0),
            *_outside(not_negative, "must be 0 or above", lambda value: 0 <= value < inf),
            *_outside({"top_p": settings.top_p}, "must be above 0, and 1 at most", lambda value: 0 < value <= 1),
            *_check_question(settings),
            *_check_engine(settings.engine, settings.thinking),
        ]
    )


def validate_serve(settings: ServeSettings) -> None:
    """Refuse settings that cannot serve.

    Raises:
        ConfigError: Lists every problem found, each with its remedy.
    """
    limits = {f"limits.{name}": value for name, value in vars(settings.limits).items()}
    not_negative = {key: limits.pop(key) for key in ("limits.waiting", "limits.grace_seconds")}
    _refuse(
        [
            *_outside({"port": settings.port}, "must lie between 0 and 65535", lambda value: 0 <= value < 2**16),
            *_outside(limits, "must be above 0", lambda value: 0 < value < inf),
            *_outside(not_negative, "must be 0 or above", lambda value: 0 <= value < inf),
            *_check_engine(settings.engine, settings.thinking),
        ]
    )


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


def _check_engine(engine: EngineSettings, thinking: ThinkingSettings) -> list[str]:
    positive = {f"engine.{name}": getattr(engine, name) for name in ("batch_size", "context", "cache_gb")}
    efforts = {f"thinking.efforts.{name}": value for name, value in vars(thinking.efforts).items()}
    return [
        *_outside(positive, "must be above 0", lambda value: 0 < value < inf),
        *_outside(efforts, "must be 0 or above", lambda value: value >= 0),
    ]


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError("\n".join(f"- {problem}" for problem in problems))


def _check_choices(settings: SftSettings) -> list[str]:
    problems = []
    if settings.trainer.precision not in PRECISIONS:
        problems.append(f"trainer.precision={settings.trainer.precision}: choose one of {', '.join(PRECISIONS)}")
    if settings.model.dtype not in DTYPES:
        problems.append(f"model.dtype={settings.model.dtype}: choose one of {', '.join(DTYPES)}")
    if not settings.data.messages:
        problems.append("data.messages=false: training shows its samples from validation.jsonl; leave it true")
    return problems


def _check_ranges(settings: SftSettings) -> list[str]:
    peft, optim = settings.peft, settings.optim
    trainer, callbacks = settings.trainer, settings.callbacks
    positive = {
        **({} if peft.scheme is PeftScheme.none else {"peft.dim": peft.dim, "peft.alpha": peft.alpha}),
        "optim.lr": optim.lr,
        "trainer.epochs": trainer.epochs,
        "trainer.max_steps": trainer.max_steps,
        "trainer.seq_length": trainer.seq_length,
        "trainer.global_batch_size": trainer.global_batch_size,
        "trainer.eval_interval": trainer.eval_interval,
        "trainer.gc_interval": trainer.gc_interval,
        "callbacks.progress_interval": callbacks.progress_interval,
        "callbacks.samples_max_new_tokens": callbacks.samples_max_new_tokens,
        **_layout(trainer),
    }
    not_negative = {
        "optim.weight_decay": optim.weight_decay,
        "optim.clip_grad": optim.clip_grad,
        "trainer.keep_checkpoints": trainer.keep_checkpoints,
        "trainer.offload_layers": trainer.offload_layers,
        "callbacks.samples_interval": callbacks.samples_interval,
        "evaluate": settings.evaluate,
    }
    shares = {"optim.min_lr_ratio": optim.min_lr_ratio}
    below_one = {
        "peft.dropout": peft.dropout,
        "optim.warmup_ratio": optim.warmup_ratio,
        "optim.beta1": optim.beta1,
        "optim.beta2": optim.beta2,
    }
    return [
        *_outside(positive, "must be above 0", lambda value: 0 < value < inf),
        *_outside(not_negative, "must be 0 or above", lambda value: 0 <= value < inf),
        *_outside(shares, "must lie between 0 and 1", lambda value: 0 <= value <= 1),
        *_outside(below_one, "must be 0 or above, and below 1", lambda value: 0 <= value < 1),
    ]


def _layout(trainer: TrainerSettings) -> dict[str, int]:
    """Return the settings that share the work out to devices."""
    names = ("micro_batch_size", "devices", "num_nodes", *_PARALLEL)
    return {f"trainer.{name}": getattr(trainer, name) for name in names}


def _outside(values: Mapping[str, float | None], rule: str, holds: Callable[[float], bool]) -> list[str]:
    return [f"{key}={value}: {rule}" for key, value in values.items() if value is not None and not holds(value)]


def _check_data(data: DataSettings) -> list[str]:
    filters = data.filters
    positive = {
        "data.rows": data.rows,
        "data.workers": data.workers,
        "data.block_kb": data.block_kb,
        "data.shard_mb": data.shard_mb,
        "data.packing_window": data.packing_window,
        "data.filters.max_tokens": filters.max_tokens,
        "data.filters.max_completion_tokens": filters.max_completion_tokens,
        "data.filters.overlap_words": filters.overlap_words,
        **{f"data.subsets.{name}": rows for name, rows in data.subsets.items()},
    }
    shares = {
        "data.thinking_off_share": data.thinking_off_share,
        "data.max_quarantined_share": data.max_quarantined_share,
        "data.filters.language_confidence": filters.language_confidence,
        "data.filters.near_duplicates": filters.near_duplicates,
    }
    inner = {"data.validation_share": data.validation_share}  # neither split may be empty
    return [
        *_outside(positive, "must be above 0", lambda value: 0 < value < inf),
        *_outside(shares, "must lie between 0 and 1", lambda value: 0 <= value <= 1),
        *_outside(inner, "must be above 0, and below 1", lambda value: 0 < value < 1),
        *_check_source(data),
    ]


def _check_source(data: DataSettings) -> list[str]:
    if data.source is DataSource.builtin and data.rows is None:
        return ["data.rows=null: the built-in problems never end; give a number of rows"]
    if data.source is DataSource.jsonl and not data.paths:
        return ["data.paths=[]: name at least one file, as in data.paths=[rows.jsonl]"]
    if data.source is DataSource.nemotron and not data.subsets:
        return ["data.subsets={}: name at least one, as in data.subsets={math: 1000}"]
    return []


def _check_batches(settings: SftSettings) -> list[str]:
    trainer = settings.trainer
    if min(trainer.global_batch_size, *_layout(trainer).values()) <= 0:
        return []  # reported with the ranges
    sizes = [getattr(trainer, name) for name in _PARALLEL]
    processes, parallel = trainer.devices * trainer.num_nodes, prod(sizes)
    if processes % parallel:
        return [
            f"trainer.devices={trainer.devices} x num_nodes={trainer.num_nodes} cannot be split into model-parallel "
            f"groups of {' x '.join(str(size) for size in sizes)} = {parallel}; make it a multiple"
        ]
    together = trainer.micro_batch_size * trainer.data_parallel_size
    if trainer.global_batch_size % together:
        return [
            f"trainer.global_batch_size={trainer.global_batch_size} is not a multiple of {together} = micro_batch_size "
            f"{trainer.micro_batch_size} x {trainer.data_parallel_size} data-parallel replicas; make it one"
        ]
    return []


def _check_model(settings: SftSettings) -> list[str]:
    shape, trainer, name = settings.model.architecture, settings.trainer, settings.model.name
    if shape is None:
        if settings.model.init is Init.random:
            return ["model.init=random needs model.architecture, which is null; choose a listed model"]
        return []
    problems = []
    if trainer.seq_length > shape.max_seq_length:
        problems.append(
            f"trainer.seq_length={trainer.seq_length} exceeds the {shape.max_seq_length} tokens of {name}; lower it"
        )
    heads, groups, layers = shape.num_attention_heads, shape.num_query_groups, shape.num_layers
    for key, parts, divisible in (
        ("tensor_model_parallel_size", f"{heads} attention heads and {groups} KV groups", gcd(heads, groups)),
        ("pipeline_model_parallel_size", f"{layers} layers", layers),
    ):
        size = getattr(trainer, key)
        if size > 0 and divisible % size:
            choices = ", ".join(str(number) for number in range(1, divisible + 1) if divisible % number == 0)
            problems.append(f"trainer.{key}={size} does not divide the {parts} of {name}; choose one of {choices}")
    return problems


def _check_machine(settings: SftSettings) -> list[str]:
    problems, wanted = [], settings.backend
    on_cpu = settings.hardware.accelerator is Accelerator.cpu
    quantised = settings.peft.scheme is PeftScheme.qlora
    without_te = on_cpu or wanted.cuda is False or wanted.transformer_engine is False or quantised
    if on_cpu and wanted.cuda:
        problems.append(f"backend.cuda=true contradicts hardware={settings.hardware.name}; choose one of conf/hardware")
    if quantised and wanted.transformer_engine:
        problems.append(
            "backend.transformer_engine=true with peft=qlora: its linears cannot hold NF4 weights; set it to null"
        )
    if without_te and settings.trainer.context_parallel_size > 1:
        problems.append(
            f"trainer.context_parallel_size={settings.trainer.context_parallel_size} needs GPUs with Transformer "
            "Engine; set it to 1"
        )
    problems += check_trainer(settings, on_cpu=on_cpu or wanted.cuda is False, without_te=without_te)
    problems += [
        f"trainer.packing=true with trainer.{name}={getattr(settings.trainer, name)}: packed batches differ in length; "
        "set trainer.packing=false"
        for name in ("pipeline_model_parallel_size", "context_parallel_size")
        if settings.trainer.packing and getattr(settings.trainer, name) > 1
    ]
    if settings.dry_run and settings.evaluate:
        problems.append("dry_run=true loads nothing, so nothing can be evaluated; set evaluate=0")
    return problems
