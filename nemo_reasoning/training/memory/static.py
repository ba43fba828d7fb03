"""Bytes that do not depend on the batch: weights, adapter, gradients and optimiser of one device.

Megatron keeps for each trained parameter its value, a gradient in float32, Adam's two moments in float32
and, where the value is bfloat16, a float32 copy of it: 18 bytes in bf16-mixed, 16 in float32. A frozen
parameter costs its value alone. Moments of 8 bits take a quarter; paged ones count as if they stayed.
"""

from dataclasses import dataclass

from nemo_reasoning.config.model import PeftScheme
from nemo_reasoning.config.trainer import Fp8
from nemo_reasoning.models.sizes import linear_shapes, nf4_bytes, nf4_groups, small_tensors
from nemo_reasoning.training.memory.workload import Workload

_FLOAT32 = 4
_SMALLEST_8BIT, _BLOCK_8BIT = 4096, 256  # entries, as bitsandbytes has them (arXiv 2110.02861)


@dataclass(frozen=True)
class StaticBytes:
    """What lies in memory from the first step to the last.

    Attributes:
        weights: The base model.
        adapter: The adapter's values.
        gradients: Of everything trained.
        optimizer: Adam's moments, the float32 copies, and what belongs to each tensor's moments.
        fp8: Transformer Engine's copies of the linears' weights in FP8.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    fp8: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.adapter + self.gradients + self.optimizer + self.fp8


def base_tensors(work: Workload) -> list[int]:
    """Return the entries of each base tensor of one device: its share of the linears, norms, biases, embeddings.

    Embedding and output head are one table or two; a pipeline's end stages hold one each, the last the norm as well.
    """
    hidden = work.shape.hidden_size
    linears = [inputs * outputs // work.tensor_parallel for inputs, outputs in linear_shapes(work.shape).values()]
    shared = work.shape.tie_embeddings and work.pipeline_parallel == 1
    tables = work.is_first + work.is_last - shared
    norms = small_tensors(work.shape)
    bias = [norms.pop() // work.tensor_parallel] if work.shape.qkv_bias else []
    return [*work.layers * [*linears, *norms, *bias], *work.is_last * [hidden], *tables * [work.vocabulary * hidden]]


def base_parameters(work: Workload) -> int:
    """Return the base parameters of one device."""
    return sum(base_tensors(work))


def adapter_tensors(work: Workload) -> list[int]:
    """Return the entries of each adapter tensor of one device.

    DoRA adds a magnitude for each output (arXiv 2402.09353).
    """
    if work.trains_base:
        return []
    tensors = list[int]()
    for name in work.target_modules:
        inputs, outputs = linear_shapes(work.shape)[name]
        tensors += [work.dim * inputs // work.tensor_parallel, work.dim * outputs // work.tensor_parallel]
        if work.scheme is PeftScheme.dora:
            tensors.append(outputs // (1 if name in ("linear_proj", "linear_fc2") else work.tensor_parallel))
    return work.layers * tensors


def adapter_parameters(work: Workload) -> int:
    """Return the adapter's parameters on one device."""
    return sum(adapter_tensors(work))


def trained_tensors(work: Workload) -> list[int]:
    """Return the entries of each tensor that the optimiser changes, on one device."""
    return base_tensors(work) if work.trains_base else adapter_tensors(work)


def trained_parameters(work: Workload) -> int:
    """Return what the optimiser changes, on one device."""
    return sum(trained_tensors(work))


def static_bytes(work: Workload) -> StaticBytes:
    """Return the bytes of one device that do not depend on the batch."""
    return StaticBytes(
        weights=_weight_bytes(work),
        adapter=work.width * adapter_parameters(work),
        gradients=_FLOAT32 * trained_parameters(work),
        optimizer=_optimizer_bytes(work),
        fp8=_fp8_bytes(work),
    )


def _fp8_bytes(work: Workload) -> int:
    """Return the bytes of the FP8 copies of the base's linears: one as the weight lies, one transposed.

    Transformer Engine multiplies with the second in the backward pass, and keeps both from one micro-batch to the
    next. With `tensorwise` scaling the first and the last layer stay in bfloat16 (training/nemo_objects.py).
    """
    layers = {Fp8.none: 0, Fp8.delayed: work.layers, Fp8.tensorwise: max(0, work.layers - 2)}[work.fp8]
    linears = sum(inputs * outputs // work.tensor_parallel for inputs, outputs in linear_shapes(work.shape).values())
    return 2 * layers * linears


def _optimizer_bytes(work: Workload) -> int:
    """Return the bytes of the float32 copies and of both moments.

    Replicas may share both out. Beside them torch counts the steps of each tensor. bitsandbytes has a scale for each
    block of 8-bit moments, and two tables of what the 8 bits stand for; small tensors keep float32.
    """
    tensors = trained_tensors(work)
    copies = _FLOAT32 * sum(tensors) if work.width < _FLOAT32 else 0
    if not work.optimizer.is_8bit:
        shared = copies + 2 * _FLOAT32 * sum(tensors)
        return -(-shared // work.optimizer_shards) + _FLOAT32 * len(tensors)
    large = [entries for entries in tensors if entries >= _SMALLEST_8BIT]
    small = sum(tensors) - sum(large)
    scales = sum(-(-entries // _BLOCK_8BIT) for entries in large)
    tables = 256 if large else 0
    return copies + 2 * (sum(large) + _FLOAT32 * (small + scales + tables))


def _weight_bytes(work: Workload) -> int:
    parameters, packed = base_parameters(work), 0
    if work.scheme is PeftScheme.qlora:
        for name in work.target_modules:
            inputs, outputs = linear_shapes(work.shape)[name]
            matrix, ranks = inputs * outputs, work.tensor_parallel
            parameters -= work.layers * matrix // ranks
            packed += work.layers * nf4_bytes(matrix, ranks=ranks, groups=nf4_groups(name, outputs))
    return work.width * parameters + packed
