"""What a run would do, from its settings alone: no weights, no NeMo, no GPU."""

from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from nemo_reasoning.config.data import DataSettings, DataSource
from nemo_reasoning.config.export import EXPORT_FORMATS, refused_formats
from nemo_reasoning.config.model import Architecture, PeftScheme, PeftSettings
from nemo_reasoning.config.train import SftSettings, validate
from nemo_reasoning.config.trainer import LAYOUT
from nemo_reasoning.data.prepare.inputs import check_local_files
from nemo_reasoning.errors import ModelSourceError
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.terminal import plain_console
from nemo_reasoning.training.forecast import Forecast, forecast, told
from nemo_reasoning.training.memory.estimate import GIB
from nemo_reasoning.training.memory.planner import available_gb, known_shape, request_of, too_large
from nemo_reasoning.training.memory.static import base_parameters, static_bytes, trained_parameters
from nemo_reasoning.training.memory.tables import choice_table, parts_table
from nemo_reasoning.training.memory.verification import verification_bytes
from nemo_reasoning.training.memory.workload import workload_of


@dataclass(frozen=True)
class RunPlan:
    """Sizes of a run.

    Attributes:
        parameters: Of the base model.
        trainable_parameters: Of the adapter, or of the model where all of it is trained.
        weight_bytes: Of the base model as training holds it, over all devices.
        tokens_per_step: Most input positions of an optimiser step.
        micro_batches: Forward passes of one replica in a step.
        rows: Training rows to expect (a hash decides which ones validate), None where only reading the data tells.
        steps: Optimiser steps; where `rows` decides, as uncertain as these.
        stages: What the command does, in order.
        forecast: What reading the data takes, where they come from a hub.
        speed: How fast a step is, and where that number comes from.
        duration: How long the steps take, and what they cost; of `trainer.hours`, how many there is time for.
    """

    parameters: int
    trainable_parameters: int
    weight_bytes: int
    tokens_per_step: int
    micro_batches: int
    rows: int | None
    steps: int | None
    stages: tuple[str, ...]
    forecast: str | None
    speed: str | None
    duration: str | None


def plan_run(settings: SftSettings) -> RunPlan:
    """Derive the plan.

    Raises:
        DataError: A file of one's own is missing.
        ModelSourceError: The model's shape is unknown because its source is not a local directory.
        ConfigError: The settings do not suit the shape read from that directory.
    """
    check_local_files(settings.data)
    shape = settings.model.architecture or _local_architecture(settings)
    trainer, model = settings.trainer, workload_of(settings, shape).undivided()
    rows = _training_rows(settings)
    steps = trainer.max_steps
    if steps is None and rows is not None:
        steps = max(1, round(trainer.epochs * rows / trainer.global_batch_size))
    speed = forecast(settings, shape)
    return RunPlan(
        parameters=base_parameters(model),
        trainable_parameters=trained_parameters(model),
        weight_bytes=static_bytes(model).weights,
        tokens_per_step=trainer.global_batch_size * trainer.seq_length,
        micro_batches=trainer.global_batch_size // (trainer.micro_batch_size * trainer.data_parallel_size),
        rows=rows,
        steps=steps,
        stages=_stages(settings),
        forecast=settings.data.forecast(),
        speed=told(settings, speed),
        duration=None if speed is None else _duration(speed, steps, trainer.hours),
    )


def _duration(speed: Forecast, steps: int | None, hours: float | None) -> str | None:
    if hours is not None:
        return speed.filling(hours)
    return None if steps is None else speed.duration(steps)


def _local_architecture(settings: SftSettings) -> Architecture:
    directory = Path(settings.model.source).expanduser()
    if not directory.is_dir():
        raise ModelSourceError(
            f"model.source={settings.model.source} is not a local directory, so its shape is unknown before the "
            "download; choose a listed model, or download it first"
        )
    shape = architecture_from_hf(directory)
    validate(replace(settings, model=replace(settings.model, architecture=shape)))
    return shape


def _training_rows(settings: SftSettings) -> int | None:
    data = settings.data
    if data.source is DataSource.jsonl:
        return None
    wanted = [data.rows] if data.source is DataSource.builtin else list(data.wanted_rows.values())
    known = [rows for rows in wanted if rows is not None]
    return round(sum(known) * (1 - data.validation_share)) if len(known) == len(wanted) else None


def _stages(settings: SftSettings) -> tuple[str, ...]:
    out, trainer, source = settings.output_dir, settings.trainer, _source(settings.data)
    base = "random weights" if settings.model.init.value == "random" else settings.model.source
    if settings.peft.start_from is not None:
        how = "merged into it" if settings.peft.merges_start else "trained further"
        base += f", with the adapter {settings.peft.start_from} {how}"
    measure = [f"measure {settings.measured_before} held-out problems in both modes"] if settings.evaluate else []
    return (
        f"prepare {source} -> {out}/data",
        f"base model: {base}",
        *measure,
        f"train {_scheme(settings.peft)}, {trainer.precision}, {trainer.devices} x {settings.hardware.name}; "
        f"validate and save every {trainer.eval_interval} steps -> {out}/checkpoints",
        *([f"export, measure {settings.evaluate}, report -> {out}/report.html"] if measure else []),
    )


def _scheme(peft: PeftSettings) -> str:
    return "every weight" if peft.scheme is PeftScheme.none else f"with {peft.scheme.value}"


def _source(data: DataSettings) -> str:
    if data.source is DataSource.builtin:
        return "built-in problems"
    if data.source is DataSource.nemotron:
        return f"{', '.join(data.wanted_rows)} of {data.root or 'the sources in data.layout'}"
    return ", ".join(data.paths)


def plan_table(plan: RunPlan) -> Table:
    """Return the plan as a table for the terminal."""
    table = Table(title="Plan (dry run: nothing was loaded)", show_header=False)
    share = plan.trainable_parameters / plan.parameters
    unknown = "known once the data are read"
    for label, value in (
        ("base parameters", f"{plan.parameters:,}"),
        ("trainable parameters", f"{plan.trainable_parameters:,} ({share:.2%})"),
        ("base weights", f"{plan.weight_bytes / 2**30:.1f} GiB"),
        ("tokens a step, at most", f"{plan.tokens_per_step:,} in {plan.micro_batches} micro-batches a replica"),
        ("training rows", unknown if plan.rows is None else f"about {plan.rows:,}"),
        ("steps", unknown if plan.steps is None else f"{plan.steps:,}"),
    ):
        table.add_row(label, value)
    for number, stage in enumerate(plan.stages, start=1):
        table.add_row(f"stage {number}", stage)
    for label, said in (("data", plan.forecast), ("speed", plan.speed), ("training", plan.duration)):
        if said is not None:
            table.add_row(label, said)
    return table


def print_plan(settings: SftSettings, *, asked: SftSettings) -> None:
    """Print the plan of a run and the memory it needs.

    Args:
        settings: The run, settled.
        asked: The run before, where micro-batch and recompute may still be open.
    """
    plain_console().print(plan_table(plan_run(settings)))
    print_memory(settings, asked=asked)


def print_memory(settings: SftSettings, *, asked: SftSettings) -> None:
    """Print what a run can be exported as, and the memory it needs; arguments as for `print_plan`."""
    console = plain_console()
    shape = known_shape(settings)
    if shape is None:
        return
    refused = refused_formats(settings.peft, shape)
    formats = ", ".join(name for name in EXPORT_FORMATS if name not in refused)
    verifying = verification_bytes(settings, shape) / GIB
    console.print(f"exports: {formats}; comparing their logits takes about {verifying:.1f} GiB of main memory")
    for name, reason in refused.items():
        console.print(f"not {name}: {reason}")
    layout = {name: getattr(settings.trainer, name) for name in (*LAYOUT, "sequence_parallel")}
    asked = replace(asked, trainer=replace(asked.trainer, **layout))
    request, memory = request_of(asked, shape), available_gb(settings)
    work = workload_of(settings, shape)
    console.print(parts_table(work, memory_gb=memory, device=settings.hardware.name))
    if request.open_batch or request.open_recompute:
        console.print(choice_table(request, chosen=work, memory_gb=memory))
    if warning := too_large(settings):  # on a CPU, where it is no refusal
        console.print(f"too much: {warning}", soft_wrap=True)
