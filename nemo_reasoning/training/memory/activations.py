"""Bytes of the tensors that autograd keeps between the forward and the backward pass.

The list follows Korthikanti et al. (arXiv 2205.05198, section 4), but for Llama-like layers with adapters and
attention that never holds a score matrix. A frozen linear keeps nothing; an adapter keeps its input, the
output of its first half, and where it has dropout a mask. Tensor parallelism without sequence parallelism
divides what lies between a column-parallel and a row-parallel linear, and nothing else.
"""

from collections.abc import Iterator

from nemo_reasoning.config.model import PeftScheme
from nemo_reasoning.config.trainer import Recompute
from nemo_reasoning.models.sizes import linear_shapes
from nemo_reasoning.training.memory.workload import Workload

_FLOAT32 = 4


def _norm_width(work: Workload) -> int:
    """Return the bytes that a norm keeps of an element.

    torch's, which a CPU has where the weight is trained, keeps its input and what it normalised, both in float32.
    """
    return 2 * _FLOAT32 if work.on_cpu and work.trains_base else work.width


def _fuses_adapters(work: Workload) -> bool:
    """Tell whether backend/fused_lora.py runs, which keeps the plain input of an adapter with dropout."""
    return work.torch_layers and work.tensor_parallel == 1 and work.scheme is not PeftScheme.dora


def layer_bytes(work: Workload, *, input_gradient: bool = True) -> float:
    """Return the bytes a position of one layer keeps, with nothing recomputed.

    Args:
        work: The workload.
        input_gradient: Whether the layer's input has a gradient; behind a frozen embedding it has none.
    """
    return sum(size for _, size in _attention(work, input_gradient)) + sum(size for _, size in _mlp(work))


def _attention(work: Workload, input_gradient: bool) -> Iterator[tuple[str, float]]:
    shape, width, parts = work.shape, work.width, work.tensor_parallel
    heads, keys = shape.num_attention_heads * shape.head_dim / parts, shape.num_query_groups * shape.head_dim / parts
    blocked = work.on_cpu and work.width < _FLOAT32  # backend/attention.py, which keeps its inputs only
    copied = work.torch_layers and work.width == _FLOAT32  # no flash kernel takes float32
    padding = 2 if copied and work.packing else 1  # there samples are padded, at most doubled
    # On a GPU attention that is computed again keeps its inputs, and its output is the next linear's: nothing is saved.
    whole = not work.on_cpu or work.recompute is not Recompute.selective
    keeps_output = whole and not blocked
    if input_gradient:
        yield "norm", shape.hidden_size * _norm_width(work) + _FLOAT32
    yield from _linear(work, "linear_qkv", mask=input_gradient or _fuses_adapters(work))
    yield "query", padding * heads * width
    yield "key", padding * keys * width
    # A plain value is a view of the joint projection, which it keeps whole; Transformer Engine's is a copy.
    apart = copied or not work.torch_layers or (blocked and whole and not work.packing)
    yield "value", (padding * keys if apart else heads + 2 * keys) * width
    if shape.qk_norm:  # queries are copied out of the joint projection; to torch's norm keys are a view of it
        yield "query before its norm", heads * _norm_width(work)
        viewed = work.torch_layers and _norm_width(work) == width
        yield "key before its norm", (heads + 2 * keys if apart else 0) * width if viewed else keys * _norm_width(work)
        yield "lengths of query and key", (shape.num_attention_heads + shape.num_query_groups) / parts * _FLOAT32
    if not work.torch_layers and work.recompute is Recompute.selective:
        yield "value as it was", keys * width
    if keeps_output:
        yield "log-sum-exp", padding * shape.num_attention_heads / parts * _FLOAT32
    if keeps_output or work.trains_base or (work.adapts("linear_proj") and not _copies_input(work)):
        yield "output", padding * heads * width
    yield from _linear(work, "linear_proj", shared=not copied)


def _mlp(work: Workload) -> Iterator[tuple[str, float]]:
    shape, width = work.shape, work.width
    inner = shape.ffn_hidden_size / work.tensor_parallel
    yield "norm", shape.hidden_size * _norm_width(work) + _FLOAT32
    yield from _linear(work, "linear_fc1")
    yield "gate and up", 2 * inner * width
    yield from _linear(work, "linear_fc2")


def _linear(work: Workload, name: str, *, mask: bool = True, shared: bool = False) -> Iterator[tuple[str, float]]:
    """Yield what a linear and its adapter keep; `shared` says that somebody else keeps the plain input."""
    inputs, outputs = linear_shapes(work.shape)[name]
    if name in ("linear_qkv", "linear_fc1"):
        outputs //= work.tensor_parallel
    else:
        inputs //= work.tensor_parallel
    if work.trains_base and not shared:
        yield f"{name} input", inputs * work.width
    if not work.adapts(name):
        return
    if _copies_input(work) or not shared:
        yield f"{name} input", inputs * work.width
    if _copies_input(work) and not work.torch_layers and name in ("linear_qkv", "linear_fc1"):
        yield f"{name} input before dropout", inputs * work.width
    if work.dropout and mask:
        yield f"{name} mask", inputs * (work.width if work.on_cpu and not _fuses_adapters(work) else 1)
    yield f"{name} bottleneck", work.dim * work.width
    if work.scheme is PeftScheme.dora:
        yield f"{name} output before its magnitude", outputs * work.width


def _copies_input(work: Workload) -> bool:
    """Tell whether an adapter keeps its input after dropout instead of the plain one."""
    return bool(work.dropout) and not _fuses_adapters(work)


def activation_bytes(work: Workload) -> int:
    """Return the most bytes that autograd keeps at a time for one forward and backward pass, without the loss.

    With full recompute only the layers' inputs stay, and the tensors of the one layer that is computed again.
    A pipeline's first stage holds as many micro-batches as it has stages (1F1B), which cancels its share of the
    layers.
    """
    shape, positions = work.shape, work.positions
    final = shape.hidden_size * _norm_width(work) + _FLOAT32
    layer = layer_bytes(work)
    if work.recompute is Recompute.full:
        inputs = work.layers * work.pipeline_parallel * shape.hidden_size * work.width
        kept_twice = 0 if _norm_width(work) > work.width else shape.hidden_size * work.width  # by the first norm
        return round(positions * (inputs + max(layer - kept_twice, final)))
    first = layer_bytes(work, input_gradient=work.trains_base)
    layers = (work.layers - 1) * layer + first
    return round(positions * (work.pipeline_parallel * layers + final))
