"""Turn a run's open settings into numbers, and refuse what its GPU cannot hold.

Micro-batch and recompute are chosen where they are `auto`; where nothing fits, the refusal names what would.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path

from nemo_reasoning.config import group_names, read_group
from nemo_reasoning.config.model import LORA_TARGETS, Architecture, PeftScheme
from nemo_reasoning.config.train import SftSettings, validate
from nemo_reasoning.config.trainer import AUTO_BATCH, Accelerator, Recompute
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.hardware import main_memory
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.training.memory.estimate import GIB, USABLE_SHARE, MemoryEstimate, busiest, estimate_memory, fits
from nemo_reasoning.training.memory.layouts import Tried, told, tried_layouts, with_layout
from nemo_reasoning.training.memory.workload import Workload, workload_of

_SHORTEST = 256


@dataclass(frozen=True)
class Request:
    """What is to be computed, and what is still open.

    Attributes:
        work: The workload; micro-batch and recompute count only where they are not open.
        rows: Of a step on one replica; a micro-batch divides it.
        open_batch: Whether the micro-batch is to be chosen.
        open_recompute: Whether recompute is to be chosen.
    """

    work: Workload
    rows: int
    open_batch: bool
    open_recompute: bool

    def options(self) -> Iterator[Workload]:
        """Yield what may be chosen, the fastest first: nothing recomputed, then large micro-batches.

        Recomputing costs a third of the forward and backward pass; a smaller micro-batch costs little while
        it has some thousand positions.
        """
        recomputes = (Recompute.none, Recompute.full) if self.open_recompute else (self.work.recompute,)
        sizes = [self.work.micro_batch_size]
        if self.open_batch:  # a pipeline wants as many micro-batches as it has stages
            sizes = [
                size for size in divisors(self.rows)[::-1] if self.rows // size >= self.work.pipeline_parallel
            ] or [1]
        for recompute in recomputes:
            for size in sizes:
                yield replace(self.work, recompute=recompute, micro_batch_size=size)

    def best(self, memory_gb: float) -> Workload | None:
        """Return the first option that fits into `memory_gb` GiB."""
        return next((option for option in self.options() if fits(option, memory_gb)), None)


def divisors(number: int) -> list[int]:
    """Return the divisors of a positive number in order."""
    return [size for size in range(1, number + 1) if number % size == 0]


@dataclass(frozen=True)
class Option:
    """A line of the table that explains a choice."""

    recompute: Recompute
    micro_batch_size: int
    estimate: MemoryEstimate
    fits: bool


def compare_options(request: Request, memory_gb: float) -> list[Option]:
    """Return for each recompute that comes into question the largest micro-batch that fits and the next larger."""
    lines: list[Option] = []
    options = list(request.options())
    for recompute in dict.fromkeys(option.recompute for option in options):
        same = [option for option in options if option.recompute is recompute]
        first = next((place for place, option in enumerate(same) if fits(option, memory_gb)), len(same))
        for option in same[max(0, first - 1) : first + 1]:
            lines.append(
                Option(recompute, option.micro_batch_size, estimate_memory(busiest(option)), fits(option, memory_gb))
            )
        if first < len(same):
            break  # what follows is slower
    return lines


def alternatives(request: Request, memory_gb: float) -> list[str]:
    """Return overrides that make an impossible request possible, the smallest change first.

    Args:
        request: What does not fit.
        memory_gb: Of the GPU, in GiB.
    """
    found = _closest(request, request, memory_gb)
    for scheme in _lighter(request.work.scheme):
        found += _lighter_scheme(request, scheme, memory_gb)
    length = request.work.seq_length // 2
    while length >= _SHORTEST:
        if shorter := _closest(_with(request, seq_length=length), request, memory_gb, f"trainer.seq_length={length}"):
            found += shorter
            break
        length //= 2
    larger = (size for size in gpu_sizes() if size > memory_gb)
    found += next((fit for size in larger if (fit := _closest(request, request, size, f"hardware=gpu_{size}gb"))), [])
    return found or _shared(request, memory_gb)


def gpu_sizes() -> list[int]:
    """Return the memory of the GPUs in conf/hardware, in GiB."""
    names = (name for name in group_names("hardware") if name.startswith("gpu_"))
    return sorted(read_group("hardware", name).memory_gb for name in names)


def _lighter_scheme(request: Request, scheme: PeftScheme, memory_gb: float) -> list[str]:
    """Return how a scheme makes it possible; QLoRA quantises what it adapts, so adapting all may be the way."""
    lighter = _with(request, scheme=scheme)
    if fit := _closest(lighter, request, memory_gb, f"peft={scheme.value}"):
        return fit
    if scheme is not PeftScheme.qlora:
        return []
    every = replace(lighter, work=replace(lighter.work, target_modules=LORA_TARGETS))
    return _closest(every, request, memory_gb, f"peft={scheme.value} 'peft.target_modules=[{','.join(LORA_TARGETS)}]'")


def _lighter(scheme: PeftScheme) -> list[PeftScheme]:
    """Return the schemes that need less."""
    if scheme is PeftScheme.none:
        return [PeftScheme.lora, PeftScheme.qlora]
    return [] if scheme is PeftScheme.qlora else [PeftScheme.qlora]


def _with(request: Request, *, scheme: PeftScheme | None = None, seq_length: int | None = None) -> Request:
    work = request.work
    if scheme is not None:
        work = replace(work, scheme=scheme, torch_layers=work.torch_layers or scheme is PeftScheme.qlora)
    return replace(request, work=replace(work, seq_length=seq_length or work.seq_length))


def _closest(changed: Request, asked: Request, memory_gb: float, override: str = "") -> list[str]:
    """Return the overrides that lead from what was asked to what fits of `changed`, as one string, or nothing.

    Recompute changes before the micro-batch, which never grows.
    """
    recomputed = replace(changed, open_recompute=True)
    for candidate in (changed, recomputed, replace(recomputed, open_batch=True)):
        for fitting in candidate.options():
            grown = not asked.open_batch and fitting.micro_batch_size > asked.work.micro_batch_size
            if not grown and fits(fitting, memory_gb):
                return [_overrides(fitting, asked, override)]
    return []


def _overrides(fitting: Workload, asked: Request, override: str) -> str:
    overrides = [override] if override else []
    if not asked.open_recompute and fitting.recompute is not asked.work.recompute:
        overrides.append(f"trainer.recompute={fitting.recompute.name}")
    if not asked.open_batch and fitting.micro_batch_size != asked.work.micro_batch_size:
        overrides.append(f"trainer.micro_batch_size={fitting.micro_batch_size}")
    return " ".join(overrides)


def _shared(request: Request, memory_gb: float) -> list[str]:
    """Return the fewest GPUs of this kind that hold the model together."""
    shape = request.work.shape
    for parts in divisors(gcd(shape.num_attention_heads, shape.num_query_groups))[1:]:
        split = replace(request, work=replace(request.work, tensor_parallel=parts))
        text = f"trainer.devices={parts} trainer.tensor_model_parallel_size={parts}"
        if fit := _closest(split, request, memory_gb, text):
            return fit
    return []


def fit_to_memory(settings: SftSettings) -> SftSettings:
    """Return the settings with micro-batch and recompute chosen where they are `auto`, all of them checked.

    A model whose shape nobody knows yet, on a hub, gets what needs least. On a CPU nothing is refused for its
    memory: the system pages, and `recipes/doctor.py` says how much it should have.

    Raises:
        ConfigError: Settings contradict each other, or the GPU named cannot hold them; with what it could.
    """
    if settings.trainer.layout_is_open:
        settings = with_layout(settings, _tried(settings))
    if settings.trainer.offload_layers:  # which excludes recompute
        settings = _resolved(settings, micro_batch_size=AUTO_BATCH, recompute=Recompute.none)
    least = _resolved(settings, micro_batch_size=1, recompute=Recompute.full)
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
    return _resolved(settings, micro_batch_size=chosen.micro_batch_size, recompute=chosen.recompute)


def explain_layout(asked: SftSettings) -> str | None:
    """Return which layout `fit_to_memory` chooses, and why; None where the settings state one."""
    return told(_tried(asked), available_gb(asked)) if asked.trainer.layout_is_open else None


def _tried(settings: SftSettings) -> list[Tried]:
    shape = known_shape(settings)
    return [] if shape is None else tried_layouts(settings, shape, available_gb(settings))


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
    return settings.hardware.memory_gb or main_memory().total / GIB


def refusal(request: Request, memory_gb: float, *, name: str, hardware: str) -> str:
    """Return why a request cannot be computed, and the nearest settings that can be.

    Args:
        request: What does not fit.
        memory_gb: Of the GPU, in GiB.
        name: Of the model.
        hardware: Its name in conf/hardware.
    """
    least = _least(request)
    need = estimate_memory(busiest(least)).total / GIB
    ways = alternatives(request, memory_gb)
    return (
        f"{name} with peft={least.scheme.value}, {least.seq_length:,} tokens, micro-batch {least.micro_batch_size}, "
        f"recompute {least.recompute.name} needs {need:.1f} GiB{_shared_by(least)}; {hardware} offers "
        f"{memory_gb:.1f}, of which {USABLE_SHARE:.0%} can be used. "
        + (f"What fits: {'; or '.join(ways)}" if ways else "Nothing near it fits either; take a smaller model")
    )


def _shared_by(work: Workload) -> str:
    if work.tensor_parallel * work.pipeline_parallel == 1:
        return ""
    return f" on its busiest GPU, shared by tensor {work.tensor_parallel} x pipeline {work.pipeline_parallel}"


def too_large(settings: SftSettings) -> str | None:
    """Return why memory is too small for settled settings, and what fits; None where it suffices or nobody knows."""
    shape, memory = known_shape(settings), available_gb(settings)
    if shape is None or fits(workload_of(settings, shape), memory):
        return None
    return refusal(request_of(settings, shape), memory, name=settings.model.name, hardware=settings.hardware.name)


def _least(request: Request) -> Workload:
    return min(request.options(), key=lambda option: estimate_memory(busiest(option)).total)


def _resolved(settings: SftSettings, *, micro_batch_size: int, recompute: Recompute) -> SftSettings:
    """Return the settings with these values where they are open."""
    trainer = settings.trainer
    if trainer.micro_batch_size == AUTO_BATCH:
        trainer = replace(trainer, micro_batch_size=micro_batch_size)
    if trainer.recompute is Recompute.auto:
        trainer = replace(trainer, recompute=recompute)
    return replace(settings, trainer=trainer)
