"""Predict how long a training step takes, from what it computes and moves and from a GPU's data sheet.

Operations follow `models.flops`, with what the machine does besides: a layer computed again where it is recomputed,
and flash attention's backward pass, five matrix products to the forward pass's two (arXiv 2307.08691). Bytes are the
inputs and outputs of what lies between the matrix products, each once: norms, rotary embedding, attention, activation
function, residual, adapters, the loss, the optimizer, NF4 weights unpacked for each pass, FP8 operands cast.
Operations and bytes take their time one after the other, and the GPU reaches a share of its peaks in both: `REACHED`,
fitted to half of the measurements that others published. benchmarks/step_time.py fits it and shows how far off the
other half is: docs/results/step_time.md. Not counted: waiting for data, communication between GPUs, validation, saving.
"""

from dataclasses import dataclass

from nemo_reasoning.config.model import PeftScheme
from nemo_reasoning.config.trainer import Fp8, Recompute
from nemo_reasoning.models.gpus import Gpu
from nemo_reasoning.models.sizes import linear_shapes
from nemo_reasoning.training.memory.static import trained_parameters
from nemo_reasoning.training.memory.workload import Workload

REACHED = 0.71
_ATTENTION_BACKWARD = 2.5  # of the forward pass
_LAUNCHES = {Recompute.none: 89, Recompute.full: 120}  # a layer and micro-batch: docs/results/roofline.md
_LAUNCH_SECONDS = 8e-6  # of the CPU for a kernel in eager PyTorch; an allowance, not a measurement
_LOSS_BYTES = 20  # an entry of the logits: written, cast to float32, read for the softmax and its gradient
_OPTIMIZER_BYTES = (
    34  # a trained parameter: gradient read and cleared, three float32 states read and written, its value
)


@dataclass(frozen=True)
class Rows:
    """What a forward pass holds.

    Attributes:
        tokens: Positions.
        length: Mean length of a row, in tokens.
        supervised: Share of the positions that are targets.
    """

    tokens: float
    length: float
    supervised: float = 1.0


def bound_seconds(work: Workload, gpu: Gpu, rows: Rows) -> float | None:
    """Return the seconds of a forward and backward pass on one GPU that reaches its peaks.

    Args:
        work: What is computed.
        gpu: On what.
        rows: The micro-batch; its `tokens` are those of one GPU.

    Returns:
        None where this GPU has no such operations: FP8, or float32, whose peak is not in `models.gpus`.
    """
    fast = gpu.bf16 if work.fp8 is Fp8.none else gpu.fp8
    if work.width != 2 or fast is None:
        return None
    linears, rest = _flops(work, rows)
    return linears / fast + rest / gpu.bf16 + _bytes(work, rows) / gpu.bandwidth


def step_seconds(work: Workload, gpu: Gpu, rows: Rows, *, micro_batches: int) -> float | None:
    """Return the seconds of an optimizer step, or None as in `bound_seconds`.

    A micro-batch takes what the GPU computes, or what the CPU needs to launch its kernels if that is longer; a pipeline
    of GPUs is filled and drained once a step.

    Args:
        work: What is computed.
        gpu: On what.
        rows: Of a micro-batch.
        micro_batches: Of a step and replica.
    """
    bound = bound_seconds(work, gpu, rows)
    if bound is None:
        return None
    full = work.recompute is Recompute.full
    launching = work.layers * _LAUNCHES[Recompute.full if full else Recompute.none] * _LAUNCH_SECONDS
    once = max(bound / REACHED, launching)
    optimizer = _OPTIMIZER_BYTES * trained_parameters(work) / (REACHED * gpu.bandwidth)
    return once * (micro_batches + work.pipeline_parallel - 1) + optimizer


def _passes(work: Workload) -> int:
    """Return how often the forward pass is computed."""
    return 2 if work.recompute is Recompute.full else 1


def _adapted(work: Workload) -> list[tuple[int, int]]:
    return [shape for name, shape in linear_shapes(work.shape).items() if work.adapts(name)]


def _flops(work: Workload, rows: Rows) -> tuple[float, float]:
    """Return the operations of the base's linears, and all others."""
    shape, forward = work.shape, _passes(work)
    weights = work.layers * sum(inputs * outputs for inputs, outputs in linear_shapes(shape).values())
    adapter = work.layers * work.dim * sum(inputs + outputs for inputs, outputs in _adapted(work))
    head = shape.hidden_size * shape.vocab_size * rows.supervised
    own = 2 if work.trains_base else 0  # for the gradients of the weights themselves
    attended = 4 * work.layers * shape.num_attention_heads * shape.head_dim * (rows.length + 1) / 2
    linear = (2 * forward + 2 + own) * weights
    rest = (2 * forward + 4) * adapter + (4 + own) * head + (forward + _ATTENTION_BACKWARD) * attended
    if work.scheme is PeftScheme.dora:  # the norm of each adapted weight, once a pass and not once a token
        rest += 2 * forward * work.layers * work.dim * sum(a * b for a, b in _adapted(work)) / rows.tokens
    return linear * rows.tokens / work.tensor_parallel, rest * rows.tokens / work.tensor_parallel


def _bytes(work: Workload, rows: Rows) -> float:
    """Return the bytes that are moved between matrix products."""
    shape, passes, linears = work.shape, _passes(work), linear_shapes(work.shape)
    queries = shape.num_attention_heads * shape.head_dim
    keys_values = linears["linear_qkv"][1] - queries
    rotated = 2 * (queries + keys_values / 2)
    hidden, inner, dropped = shape.hidden_size, shape.ffn_hidden_size, 2 if work.dropout else 0
    # entries read and written a token: norms and residuals, rotary embedding, attention, activation function
    forward = 10 * hidden + rotated + 2 * queries + keys_values + 3 * inner
    backward = 12 * hidden + rotated + 4 * queries + 2 * keys_values + 5 * inner
    for inputs, outputs in _adapted(work):
        forward += (1 + dropped) * inputs + 4 * outputs
        backward += (5 + dropped) * inputs + 2 * outputs
    each = 2 * (forward * passes + backward)
    if work.fp8 is not Fp8.none:  # read in bfloat16, written as rows and as columns
        each += 4 * sum(inputs * passes + outputs for inputs, outputs in linears.values())
    moved = work.layers * each * rows.tokens / work.tensor_parallel
    weights = work.layers * sum(a * b for a, b in linears.values()) / work.tensor_parallel
    if work.scheme is PeftScheme.qlora:
        moved += 2.5 * weights * (passes + 1)
    if work.scheme is PeftScheme.dora:
        moved += 3 * 2 * weights * passes
    return moved + _LOSS_BYTES * work.vocabulary * rows.supervised * rows.tokens
