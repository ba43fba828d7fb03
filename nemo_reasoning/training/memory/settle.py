"""Turn a run's open settings into numbers, and refuse what its GPU cannot hold."""

from dataclasses import replace
from pathlib import Path

import psutil

from nemo_reasoning.config import AUTO_BATCH, Accelerator, Architecture, Recompute, SftSettings
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.training.memory.choose import Request, nearest
from nemo_reasoning.training.memory.estimate import GIB, USABLE_SHARE, estimate_memory
from nemo_reasoning.training.memory.workload import Workload, workload_of
from nemo_reasoning.validation import validate


def settle(settings: SftSettings) -> SftSettings:
    """Return the settings with micro-batch and recompute chosen where they are `auto`, all of them checked.

    A model whose shape nobody knows yet, on a hub, gets what needs least. On a CPU nothing is refused for its
    memory: the system pages, and `recipes/doctor.py` says how much it should have.

    Raises:
        ConfigError: Settings contradict each other, or the GPU named cannot hold them; with what it could.
    """
    if settings.trainer.offload_layers:  # which excludes recompute
        settings = _with(settings, micro_batch_size=AUTO_BATCH, recompute=Recompute.none)
    least = _with(settings, micro_batch_size=1, recompute=Recompute.full)
    validate(least)
    shape = known_shape(settings)
    if shape is None:
        return least
    request = request_of(settings, shape)
    memory, on_cpu = available_gb(settings), settings.hardware.accelerator is Accelerator.cpu
    if on_cpu and not (request.open_batch or request.open_recompute):
        return settings
    chosen = request.best(memory)
    if chosen is None and not on_cpu:
        raise ConfigError(refusal(request, memory, name=settings.model.name, hardware=settings.hardware.name))
    if chosen is None:
        return least
    return _with(settings, micro_batch_size=chosen.micro_batch_size, recompute=chosen.recompute)


def request_of(settings: SftSettings, shape: Architecture) -> Request:
    """Return what a run wants to compute, and what of it is open.

    Args:
        settings: The run.
        shape: Of its model.
    """
    trainer = settings.trainer
    return Request(
        work=workload_of(settings, shape),
        rows=trainer.global_batch_size // trainer.data_parallel_size,
        open_batch=trainer.micro_batch_size == AUTO_BATCH,
        open_recompute=trainer.recompute is Recompute.auto,
    )


def known_shape(settings: SftSettings) -> Architecture | None:
    """Return the model's shape as its settings or its local directory state it, else None.

    Raises:
        ModelSourceError: The directory holds no Llama.
    """
    directory = Path(settings.model.source).expanduser()
    if settings.model.architecture is None and directory.is_dir():
        return architecture_from_hf(directory)
    return settings.model.architecture


def available_gb(settings: SftSettings) -> float:
    """Return the memory of the device that computes, in GiB."""
    return settings.hardware.memory_gb or psutil.virtual_memory().total / GIB


def refusal(request: Request, memory_gb: float, *, name: str, hardware: str) -> str:
    """Return why a request cannot be computed, and the nearest settings that can be.

    Args:
        request: What does not fit.
        memory_gb: Of the GPU, in GiB.
        name: Of the model.
        hardware: Its name in conf/hardware.
    """
    least = _least(request)
    need = estimate_memory(least).total / GIB
    ways = nearest(request, memory_gb)
    return (
        f"{name} with peft={least.scheme.value}, {least.seq_length:,} tokens, micro-batch {least.micro_batch_size}, "
        f"recompute {least.recompute.name} needs {need:.1f} GiB of a GPU; {hardware} offers {memory_gb:.1f}, of which "
        f"{USABLE_SHARE:.0%} can be used. "
        + (f"What fits: {'; or '.join(ways)}" if ways else "Nothing near it fits either; take a smaller model")
    )


def _least(request: Request) -> Workload:
    return min(request.options(), key=lambda option: estimate_memory(option).total)


def _with(settings: SftSettings, *, micro_batch_size: int, recompute: Recompute) -> SftSettings:
    """Return the settings with these values where they are open."""
    trainer = settings.trainer
    if trainer.micro_batch_size == AUTO_BATCH:
        trainer = replace(trainer, micro_batch_size=micro_batch_size)
    if trainer.recompute is Recompute.auto:
        trainer = replace(trainer, recompute=recompute)
    return replace(settings, trainer=trainer)
