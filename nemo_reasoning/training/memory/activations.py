"""Bytes of the tensors that autograd keeps between the forward and the backward pass.

The list follows Korthikanti et al. (arXiv 2205.05198, section 4), but for Llama-like layers with adapters and
attention that never holds a score matrix. A frozen linear keeps nothing; an adapter keeps its input, the
output of its first half, and where it has dropout a mask. Tensor parallelism divides what lies between a
column-parallel and a row-parallel linear, sequence parallelism with it the positions of the rest.
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
        yield "norm", work.hidden * _norm_width(work) + _FLOAT32 * work.hidden / shape.hidden_size
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
    yield "norm", work.hidden * _norm_width(work) + _FLOAT32 * work.hidden / shape.hidden_size
    yield from _linear(work, "linear_fc1")
    yield "gate and up", 2 * inner * width
    yield from _linear(work, "linear_fc2")


def _linear(work: Workload, name: str, *, mask: bool = True, shared: bool = False) -> Iterator[tuple[str, float]]:
    """Yield what a linear and its adapter keep; `shared` says that somebody else keeps the plain input."""
    inputs, outputs = linear_shapes(work.shape)[name]
    own: float = inputs  # of which the positions may be shared; an adapter gathers them
    if name in ("linear_qkv", "linear_fc1"):
        outputs, own = outputs // work.tensor_parallel, work.hidden
    else:
        inputs = own = inputs // work.tensor_parallel
    if work.trains_base and not shared:
        yield f"{name} input", own * work.width
    if not work.adapts(name):
        return
    if _copies_input(work) or not shared:
        yield f"{name} input", inputs * work.width
    if _copies_input(work) and not work.torch_layers and name in ("linear_qkv", "linear_fc1"):
        yield f"{name} input before dropout", inputs * work.width
    if work.dropout and mask:
        yield f"{name} mask", own * (work.width if work.on_cpu and not _fuses_adapters(work) else 1)
    yield f"{name} bottleneck", work.dim * work.width
    if work.scheme is PeftScheme.dora:
        yield f"{name} output before its magnitude", outputs * work.width


def _copies_input(work: Workload) -> bool:
    """Tell whether an adapter keeps its input after dropout instead of the plain one."""
    return bool(work.dropout) and not _fuses_adapters(work)


def kept_bytes(work: Workload) -> int:
    """Return what lies there when the layers' forward passes are over.

    With full recompute these are the layers' inputs. A pipeline's stage holds them of several micro-batches.
    """
    positions = work.positions * work.in_flight
    sent = 0 if work.is_last else work.hidden * work.width  # a stage keeps what it has sent to the next
    if work.recompute is Recompute.full:
        inputs = work.layers * work.hidden * work.width
        return round(positions * (inputs + sent) + work.positions * _final(work))
    first = layer_bytes(work, input_gradient=work.trains_base or not work.is_first)
    layers = (work.layers - 1) * layer_bytes(work) + first
    return round(positions * (layers + sent) + work.positions * _final(work))


def activation_bytes(work: Workload) -> int:
    """Return the most bytes that autograd keeps at a time for the forward and backward passes, without the loss.

    With full recompute a layer that is computed again comes on top, when the norm behind the last one is done.
    """
    if work.recompute is not Recompute.full:
        return kept_bytes(work)
    final = _final(work)
    kept_twice = 0 if _norm_width(work) > work.width else work.hidden * work.width  # by the first norm
    return kept_bytes(work) + round(work.positions * (max(layer_bytes(work) - kept_twice, final) - final))


def _final(work: Workload) -> float:
    """Return what the norm behind the last layer keeps of a position."""
    return work.is_last * (work.hidden * _norm_width(work) + _FLOAT32 * work.hidden / work.shape.hidden_size)
