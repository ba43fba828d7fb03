"""What decides how much memory a run needs."""

from dataclasses import dataclass, replace

from nemo_reasoning.config.model import Architecture, PeftScheme
from nemo_reasoning.config.train import SftSettings, backend_in_use
from nemo_reasoning.config.trainer import Accelerator, Fp8, OptimKind, Recompute


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One device's part of a training step.

    Attributes:
        shape: Of the model.
        scheme: How it is adapted.
        target_modules: Adapted linears under Megatron's names; without meaning for `none`.
        dim: Rank of the adapter.
        dropout: On the adapter's input.
        precision: "bf16-mixed" or "32".
        seq_length: Positions of a row.
        micro_batch_size: Rows of a forward pass.
        recompute: What is computed again in the backward pass.
        tensor_parallel: Devices that share a layer.
        pipeline_parallel: Devices that share the layers out.
        stage: Number of this device among those.
        sequence_parallel: Whether devices that share a layer share the positions between its linears.
        optimizer_shards: Replicas that share the optimiser's state out.
        rows_a_step: On one replica; None for as many as a pipeline wants.
        context_parallel: Devices that share a row.
        packing: Whether rows lie end to end.
        on_cpu: Computed by torch's CPU kernels, which keep more than CUDA's do.
        optimizer: Which AdamW.
        fp8: How Transformer Engine multiplies in FP8.
        torch_layers: Layers are ours, not Transformer Engine's; they are on a CPU, and under QLoRA.
    """

    shape: Architecture
    scheme: PeftScheme
    target_modules: tuple[str, ...]
    dim: int
    dropout: float
    precision: str
    seq_length: int
    micro_batch_size: int
    recompute: Recompute
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    stage: int = 0
    sequence_parallel: bool = False
    optimizer_shards: int = 1
    rows_a_step: int | None = None
    context_parallel: int = 1
    packing: bool = True
    on_cpu: bool = False
    torch_layers: bool = False
    optimizer: OptimKind = OptimKind.adamw
    fp8: Fp8 = Fp8.none

    @property
    def width(self) -> int:
        """Bytes of a parameter and of an activation."""
        return 2 if self.precision == "bf16-mixed" else 4

    @property
    def positions(self) -> int:
        """Token positions of a forward pass on one device."""
        return -(-self.micro_batch_size * self.seq_length // self.context_parallel)

    @property
    def layers(self) -> int:
        """Layers of one device."""
        return -(-self.shape.num_layers // self.pipeline_parallel)

    @property
    def is_first(self) -> bool:
        """Whether the device holds the embedding."""
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        """Whether the device holds the output head."""
        return self.stage == self.pipeline_parallel - 1

    @property
    def in_flight(self) -> int:
        """Micro-batches whose activations lie on the device at a time; a stage waits for those behind it (1F1B)."""
        waiting = self.pipeline_parallel - self.stage
        return waiting if self.rows_a_step is None else min(waiting, max(1, self.rows_a_step // self.micro_batch_size))

    @property
    def hidden(self) -> float:
        """Entries of a position's hidden state between two linears on one device."""
        return self.shape.hidden_size / (self.tensor_parallel if self.sequence_parallel else 1)

    @property
    def trains_base(self) -> bool:
        """Whether the base weights are trained themselves."""
        return self.scheme is PeftScheme.none

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding on one device; Megatron splits them evenly."""
        return -(-self.shape.vocab_size // self.tensor_parallel)

    def undivided(self) -> "Workload":
        """Return what one device would compute that shares the model with no other."""
        return replace(
            self, tensor_parallel=1, pipeline_parallel=1, stage=0, context_parallel=1, sequence_parallel=False
        )

    def stages(self) -> "list[Workload]":
        """Return what each device that holds other layers computes, the first first."""
        return [replace(self, stage=stage) for stage in range(self.pipeline_parallel)]

    def adapts(self, linear: str) -> bool:
        """Return whether a linear has an adapter."""
        return not self.trains_base and linear in self.target_modules


def workload_of(settings: SftSettings, shape: Architecture) -> Workload:
    """Return what one device of a run computes.

    Args:
        settings: The run.
        shape: Of its model, which `settings` may leave to the model's directory.
    """
    peft, trainer = settings.peft, settings.trainer
    on_cpu = settings.hardware.accelerator is Accelerator.cpu
    return Workload(
        shape=shape,
        scheme=peft.scheme,
        target_modules=tuple(peft.target_modules),
        dim=peft.dim,
        dropout=peft.dropout,
        precision=trainer.precision,
        seq_length=trainer.seq_length,
        micro_batch_size=trainer.micro_batch_size,
        recompute=trainer.recompute,
        tensor_parallel=trainer.tensor_model_parallel_size,
        pipeline_parallel=trainer.pipeline_model_parallel_size,
        sequence_parallel=trainer.sequence_parallel,
        optimizer_shards=trainer.data_parallel_size if trainer.distributed_optimizer else 1,
        rows_a_step=trainer.global_batch_size // trainer.data_parallel_size,
        context_parallel=trainer.context_parallel_size,
        packing=trainer.packing,
        on_cpu=on_cpu,
        optimizer=settings.optim.kind,
        fp8=trainer.fp8,
        torch_layers=backend_in_use(settings).transformer_engine is False,
    )
