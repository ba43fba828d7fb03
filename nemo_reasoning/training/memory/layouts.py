"""Choose how many ranks share a model, where several GPUs compute and nobody says it.

The fewest ranks with which the model fits: what they share is sent between them in every layer, while replicas meet
once a step. Of as many ranks, tensor parallelism comes before pipelines, whose stages wait for each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from nemo_reasoning.config.model import Architecture
from nemo_reasoning.config.train import SftSettings, problems
from nemo_reasoning.config.trainer import AUTO_BATCH, AUTO_LAYOUT, Recompute, TrainerSettings
from nemo_reasoning.training.memory.estimate import GIB, USABLE_SHARE, busiest, estimate_memory, fits
from nemo_reasoning.training.memory.workload import workload_of


@dataclass(frozen=True)
class Tried:
    """A layout that was looked at.

    Attributes:
        trainer: With the layout.
        least: GiB that its busiest rank needs, of a single row and with every layer computed again.
        fits: Whether the GPUs hold that.
    """

    trainer: TrainerSettings
    least: float
    fits: bool


def tried_layouts(settings: SftSettings, shape: Architecture, memory_gb: float) -> list[Tried]:
    """Return the layouts that the settings leave open and allow, in the order of preference, up to the first that fits.

    Args:
        settings: The run.
        shape: Of its model.
        memory_gb: Of a GPU, in GiB.
    """
    found: list[Tried] = []
    for trainer in _layouts(settings.trainer):
        least = replace(settings, trainer=_least(trainer))
        if not problems(replace(least, model=replace(least.model, architecture=shape))):
            work = workload_of(least, shape)
            found.append(Tried(trainer, estimate_memory(busiest(work)).total / GIB, fits(work, memory_gb)))
            if found[-1].fits:
                break
    return found


def with_layout(settings: SftSettings, tried: list[Tried]) -> SftSettings:
    """Return the settings with the layout that fits, else with the one that needs the least.

    Where none was allowed, what is open becomes 1, and what is given stays to be refused.
    """
    trainer = settings.trainer
    if tried:
        return replace(settings, trainer=min(tried, key=lambda one: (not one.fits, one.least)).trainer)
    sizes = trainer.tensor_model_parallel_size, trainer.pipeline_model_parallel_size
    return replace(settings, trainer=_with(trainer, *(1 if size == AUTO_LAYOUT else size for size in sizes)))


def told(tried: list[Tried], memory_gb: float) -> str | None:
    """Say which layout was chosen and why; None where none was."""
    if not tried or not tried[-1].fits:
        return None
    trainer = tried[-1].trainer
    copies = trainer.data_parallel_size
    before = [f", {_name(one.trainer)} needs {one.least:.1f}" for one in (tried[:-1][:1] + tried[1:-1][-1:])]
    return (
        f"layout of {trainer.devices * trainer.num_nodes} GPUs: {_name(trainer)}, {copies} "
        f"{'replica' if copies == 1 else 'replicas'}; a row needs {tried[-1].least:.1f} GiB of "
        f"{USABLE_SHARE * memory_gb:.1f} usable{''.join(before)}\nto choose another, set "
        "trainer.tensor_model_parallel_size and trainer.pipeline_model_parallel_size"
    )


def _name(trainer: TrainerSettings) -> str:
    return f"tensor {trainer.tensor_model_parallel_size} x pipeline {trainer.pipeline_model_parallel_size}"


def _layouts(trainer: TrainerSettings) -> Iterator[TrainerSettings]:
    """Yield what is open of the layout, in the order of preference; a layer is shared within a node only."""
    together = trainer.devices * trainer.num_nodes
    given = trainer.tensor_model_parallel_size, trainer.pipeline_model_parallel_size
    pairs = [
        (tensor, pipeline)
        for tensor in range(1, trainer.devices + 1)
        for pipeline in range(1, together // tensor + 1)
        if together % (tensor * pipeline) == 0
        and given[0] in (AUTO_LAYOUT, tensor)
        and given[1] in (AUTO_LAYOUT, pipeline)
    ]
    for tensor, pipeline in sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair[1])):
        yield _with(trainer, tensor, pipeline)


def _with(trainer: TrainerSettings, tensor: int, pipeline: int) -> TrainerSettings:
    """Return the trainer with a layout; ranks that share a layer by choice share its positions too, at no cost."""
    chosen = trainer.tensor_model_parallel_size == AUTO_LAYOUT and tensor > 1
    return replace(
        trainer,
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        sequence_parallel=trainer.sequence_parallel or chosen,
    )


def _least(trainer: TrainerSettings) -> TrainerSettings:
    """Return the trainer with what is open set to what needs the least memory."""
    rows = 1 if trainer.micro_batch_size == AUTO_BATCH else trainer.micro_batch_size
    recompute = trainer.recompute
    if recompute is Recompute.auto:
        recompute = Recompute.none if trainer.offload_layers else Recompute.full
    return replace(trainer, micro_batch_size=rows, recompute=recompute)
