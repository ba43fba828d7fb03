"""Bytes that do not depend on the batch: weights, adapter, gradients and optimiser of one device.

Megatron keeps for each trained parameter its value, a gradient in float32, Adam's two moments in float32
and, where the value is bfloat16, a float32 copy of it: 18 bytes in bf16-mixed, 16 in float32. A frozen
parameter costs its value alone.
"""

from dataclasses import dataclass

from nemo_reasoning.config import PeftScheme
from nemo_reasoning.models.shape import linear_shapes
from nemo_reasoning.peft.sizes import nf4_bytes
from nemo_reasoning.training.memory.workload import Workload

_FLOAT32 = 4


@dataclass(frozen=True)
class StaticBytes:
    """What lies in memory from the first step to the last.

    Attributes:
        weights: The base model.
        adapter: The adapter's values.
        gradients: Of everything trained.
        optimizer: Adam's moments, the float32 copies, and a step counter a tensor.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int


def linear_parameters(work: Workload) -> dict[str, int]:
    """Return the entries of each of the four linears, over the layers of one device."""
    shapes = linear_shapes(work.shape)
    return {name: work.layers * inputs * outputs // work.tensor_parallel for name, (inputs, outputs) in shapes.items()}


def embedding_parameters(work: Workload) -> int:
    """Return the entries of embedding and output head on one device; a pipeline's end stages hold one each."""
    tables = 1 if work.shape.tie_embeddings or work.pipeline_parallel > 1 else 2
    return tables * work.vocabulary * work.shape.hidden_size


def base_parameters(work: Workload) -> int:
    """Return the base parameters of one device: the share of the linears, all norms of its layers, embeddings."""
    norms = (2 * work.layers + 1) * work.shape.hidden_size
    return sum(linear_parameters(work).values()) + norms + embedding_parameters(work)


def adapter_parameters(work: Workload) -> int:
    """Return the adapter's parameters on one device; DoRA adds a magnitude for each output (arXiv 2402.09353)."""
    if work.trains_base:
        return 0
    count = 0
    for name in work.target_modules:
        inputs, outputs = linear_shapes(work.shape)[name]
        count += work.dim * (inputs + outputs) // work.tensor_parallel
        if work.scheme is PeftScheme.dora:
            count += outputs // (1 if name in ("linear_proj", "linear_fc2") else work.tensor_parallel)
    return work.layers * count


def trained_tensors(work: Workload) -> int:
    """Return the number of parameter tensors the optimiser holds."""
    if work.trains_base:
        return 6 * work.layers + 1 + (1 if work.shape.tie_embeddings or work.pipeline_parallel > 1 else 2)
    return work.layers * len(work.target_modules) * (3 if work.scheme is PeftScheme.dora else 2)


def trained_parameters(work: Workload) -> int:
    """Return what the optimiser changes, on one device."""
    return base_parameters(work) if work.trains_base else adapter_parameters(work)


def static_bytes(work: Workload) -> StaticBytes:
    """Return the bytes of one device that do not depend on the batch."""
    trained, width = trained_parameters(work), work.width
    copies = _FLOAT32 if width < _FLOAT32 else 0
    return StaticBytes(
        weights=_weight_bytes(work),
        adapter=width * adapter_parameters(work),
        gradients=_FLOAT32 * trained,
        optimizer=(2 * _FLOAT32 + copies) * trained + _FLOAT32 * trained_tensors(work),
    )


def _weight_bytes(work: Workload) -> int:
    parameters, packed = base_parameters(work), 0
    if work.scheme is PeftScheme.qlora:
        for name in work.target_modules:
            inputs, outputs = linear_shapes(work.shape)[name]
            matrix = inputs * outputs // work.tensor_parallel
            parameters -= work.layers * matrix
            packed += work.layers * nf4_bytes(matrix)
    return work.width * parameters + packed
