"""Transformer Engine's C++ extension in torch operations: what a dense Llama calls computes, the rest raises.

RMSNorm, matrix products, rotary embedding, attention (sbhd, bshd, thd), multi-tensor Adam, norm and scale. It says
whether shapes, dtypes, names and the order of calls agree; nothing about kernels' rounding, speed or workspace. On the
meta device it allocates what the kernels would keep.
"""

import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

Tensor = torch.Tensor
CALLS: Counter[str] = Counter()  # how often each function ran


class _Members(type):
    """Makes an enumeration's members when they are first asked for."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        member = cls(len(vars(cls)))
        member.name = name
        setattr(cls, name, member)
        return member


def _enumeration(name: str) -> Any:
    return _Members(name, (int,), {})


DType = _enumeration("DType")
NVTE_Bias_Type, NVTE_Mask_Type = _enumeration("NVTE_Bias_Type"), _enumeration("NVTE_Mask_Type")
NVTE_Softmax_Type, NVTE_QKV_Format = _enumeration("NVTE_Softmax_Type"), _enumeration("NVTE_QKV_Format")
NVTE_QKV_Layout, NVTE_Fused_Attn_Backend = _enumeration("NVTE_QKV_Layout"), _enumeration("NVTE_Fused_Attn_Backend")
Float8BlockScaleTensorFormat = _enumeration("Float8BlockScaleTensorFormat")
CommOverlapType, CommOverlapAlgo = _enumeration("CommOverlapType"), _enumeration("CommOverlapAlgo")
FP8FwdTensors, FP8BwdTensors = _enumeration("FP8FwdTensors"), _enumeration("FP8BwdTensors")


class FP8TensorMeta:
    scale = amax_history = None


class CommOverlap: ...


class CommOverlapP2P: ...


class CommOverlapHelper: ...


_DTYPES = {
    **{DType.kByte: torch.uint8, DType.kInt32: torch.int32, DType.kFloat32: torch.float32},
    **{DType.kFloat16: torch.float16, DType.kBFloat16: torch.bfloat16},
}


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    def counting(*args: Any, **kwargs: Any) -> Any:
        CALLS[function.__name__] += 1
        with torch.no_grad():
            return function(*args, **kwargs)

    counting.__name__ = function.__name__
    return counting


def get_cublasLt_version() -> int:
    return 130002


def get_cudnn_version() -> int:
    return 91300


def get_num_cublas_streams() -> int:
    return 4


def get_stream_priority_range(*_: Any) -> tuple[int, int]:
    return 0, -5


def device_supports_multicast(*_: Any) -> bool:
    return False


def ubuf_built_with_mpi() -> bool:
    return False


@_counted
def rmsnorm_fwd(
    x: Tensor, weight: Tensor, eps: float, out: Any, quantizer: Any, otype: Any, margin: Any, zero_centered: bool
) -> tuple[Tensor, None, Tensor]:
    assert quantizer is None, "FP8 is not emulated"
    if x.is_meta:
        return torch.empty_like(x), None, x.new_empty(x.shape[:-1], dtype=torch.float32)
    inverse = torch.rsqrt(x.float().square().mean(-1) + eps)
    normalized = x.float() * inverse[..., None] * (weight.float() + int(zero_centered))
    result = normalized.to(x.dtype if otype is None else _DTYPES[otype])
    return result if out is None else out.copy_(result), None, inverse


@_counted
def rmsnorm_bwd(
    gradient: Tensor, x: Tensor, inverse: Tensor, weight: Tensor, margin: Any, zero_centered: bool
) -> list[Tensor]:
    if x.is_meta:
        return [torch.empty_like(x), torch.empty_like(weight)]
    normalized = x.float() * inverse[..., None]
    scaled = gradient.float() * (weight.float() + int(zero_centered))
    for_x = inverse[..., None] * (scaled - normalized * (scaled * normalized).mean(-1, keepdim=True))
    for_weight = (gradient.float() * normalized).reshape(-1, x.shape[-1]).sum(0)
    return [for_x.to(x.dtype), for_weight.to(weight.dtype)]


@_counted
def generic_gemm(
    a: Tensor, transpose_a: bool, b: Tensor, transpose_b: bool, out: Any, quantizer: Any, dtype: Any, bias: Any,
    bias_dtype: Any, gelu: bool, gelu_in: Any, grad: bool, workspace: Any, workspace_size: int, accumulate: bool,
    split: bool, comm_overlap: Any = None, comm_type: Any = None, extra_output: Any = None, bulk_overlap: bool = False,
    alpha: float = 1.0, beta: Any = None,
) -> tuple[Tensor, Tensor | None, None, Any]:  # fmt: skip
    assert quantizer is None, "FP8 is not emulated"
    assert not gelu
    assert comm_overlap is None
    rows_a, rows_b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    product = (rows_b.t() if transpose_b else rows_b) @ (rows_a.t() if transpose_a else rows_a)
    product = product if alpha in (None, 1.0) else product * alpha
    for_bias = rows_b.sum(0).to(bias.dtype) if grad and bias is not None else None
    if bias is not None and not grad:
        product = product + bias
    if not transpose_b:
        product = product.view(*b.shape[:-1], -1)
    if out is not None:
        product = (out.view_as(product).add_ if accumulate else out.view_as(product).copy_)(product).view_as(out)
    elif dtype is not None:
        product = product.to(_DTYPES[dtype])
    return product, for_bias, None, extra_output


def _angles(t: Tensor, frequencies: Tensor, layout: Any, cu_seqlens: Any) -> Tensor:
    if layout is NVTE_QKV_Format.NVTE_THD:
        assert t.dim() == 3
        assert int(cu_seqlens[-1]) == len(t), "thd: cu_seqlens must cover every token"
        lengths = cu_seqlens.diff().tolist()
        assert max(lengths) <= len(frequencies), "a sample is longer than the table of angles"
        return frequencies[torch.cat([torch.arange(length) for length in lengths])].reshape(len(t), 1, -1)
    if layout is NVTE_QKV_Format.NVTE_SBHD:
        return frequencies[: t.shape[0]].reshape(t.shape[0], 1, 1, -1)
    return frequencies[: t.shape[1]].reshape(1, t.shape[1], 1, -1)


def _rotated(t: Tensor, angles: Tensor, sign: int) -> Tensor:
    wide, rest = t[..., : angles.shape[-1]].float(), t[..., angles.shape[-1] :]
    first, second = wide.chunk(2, -1)
    turned = wide * angles.cos() + torch.cat((-second, first), -1) * angles.sin() * sign
    return torch.cat((turned.to(t.dtype), rest), -1)


@_counted
def fused_rope_forward(
    t: Tensor, frequencies: Tensor, starts: Any, layout: Any, interleaved: bool, cu: Any, cp_size: int, cp_rank: int
) -> Tensor:
    assert starts is None
    assert not interleaved
    assert cp_size == 1
    return _empty(t) if t.is_meta else _rotated(t, _angles(t, frequencies, layout, cu), 1)


@_counted
def fused_rope_backward(
    gradient: Tensor, frequencies: Tensor, layout: Any, interleaved: bool, cu: Any, cp_size: int, cp_rank: int
) -> Tensor:
    return _empty(gradient) if gradient.is_meta else _rotated(gradient, _angles(gradient, frequencies, layout, cu), -1)


def _empty(like: Tensor) -> Tensor:
    return torch.empty(like.shape, dtype=like.dtype, device=like.device)


def get_fused_attn_backend(*arguments: Any) -> Any:
    for length in arguments[10:12]:
        operator.index(length)  # pybind11 accepts nothing else
    return NVTE_Fused_Attn_Backend.NVTE_F16_arbitrary_seqlen


def _attention(qkv: Sequence[Tensor], layout: Any, mask: Any, scale: float, cu_q: Any, cu_kv: Any) -> Tensor:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [.., h, s, d]
        groups = q.shape[-3] != k.shape[-3]
        return F.scaled_dot_product_attention(q, k, v, is_causal="CAUSAL" in mask.name, scale=scale, enable_gqa=groups)

    if layout.name.startswith("NVTE_T"):
        assert int(cu_q[-1]) == len(qkv[0]), "thd: cu_seqlens must cover every token"
        bounds = list(zip(cu_q.tolist(), cu_q[1:].tolist(), cu_kv.tolist(), cu_kv[1:].tolist(), strict=False))
        samples = [(slice(a, b), slice(c, d), slice(c, d)) for a, b, c, d in bounds if b > a]
        parts = [[x[part].transpose(0, 1) for x, part in zip(qkv, sample, strict=True)] for sample in samples]
        return torch.cat([attend(*part).transpose(0, 1) for part in parts])
    there, back = ((1, 2, 0, 3), (2, 0, 1, 3)) if layout.name.startswith("NVTE_S") else ((0, 2, 1, 3),) * 2
    return attend(*(x.permute(there) for x in qkv)).permute(back).contiguous()


@_counted
def fused_attn_fwd(
    max_q: int, max_kv: int, training: bool, scale: float, dropout: float, zero_fill: bool, layout: Any, bias: Any,
    mask: Any, softmax: Any, window: Any, cu_q: Any, cu_kv: Any, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any,
) -> list[Tensor]:  # fmt: skip
    operator.index(max_q), operator.index(max_kv)
    state = q.new_empty(*q.shape[:-1], 1, dtype=torch.float32), torch.empty(2, dtype=torch.int64, device=q.device)
    if q.is_meta:  # torch's flash kernel, so that operations are counted
        batched = [x.transpose(0, 1)[None] if x.dim() == 3 else x.permute(1, 2, 0, 3) for x in (q, k, v)]
        torch.ops.aten._scaled_dot_product_flash_attention(*batched, 0.0, True)
        return [_empty(q), *state]
    out = _attention((q, k, v), layout, mask, scale, cu_q, cu_kv)
    return [out, *state] if training else [out]


@_counted
def fused_attn_bwd(
    max_q: int, max_kv: int, scale: float, dropout: float, zero_fill: bool, layout: Any, bias: Any, mask: Any,
    softmax: Any, window: Any, deterministic: bool, cu_q: Any, cu_kv: Any, q: Tensor, k: Tensor, v: Tensor,
    out: Tensor, gradient: Tensor, *_: Any, **__: Any,
) -> list[Tensor]:  # fmt: skip
    CALLS["deterministic attention"] += bool(deterministic)
    if q.is_meta:
        return [_empty(x) for x in (q, k, v)]
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in (q, k, v)]
        again = _attention(leaves, layout, mask, scale, cu_q, cu_kv)
    return [x.contiguous() for x in torch.autograd.grad(again, leaves, gradient.view_as(again))]


@_counted
def multi_tensor_adam(
    chunk: int, noop: Any, lists: Any, lr: float, beta1: float, beta2: float, eps: float, step: int, mode: int,
    bias_correction: bool, weight_decay: float, *_: Any,
) -> None:  # fmt: skip
    operator.index(step)
    gradients, parameters, firsts, seconds = lists[:4]
    masters = lists[4] if len(lists) > 4 else parameters
    corrections = (1 - beta1**step, 1 - beta2**step) if bias_correction else (1.0, 1.0)
    for gradient, parameter, first, second, master in zip(gradients, parameters, firsts, seconds, masters, strict=True):
        g, value = gradient.float(), master.float()
        g = g if mode else g + weight_decay * value
        first.mul_(beta1).add_(g, alpha=1 - beta1)
        second.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        update = (first / corrections[0]) / ((second / corrections[1]).sqrt() + eps)
        value = value - lr * (update + weight_decay * value if mode else update)
        master.copy_(value)
        parameter.copy_(value)


@_counted
def multi_tensor_l2norm(chunk: int, noop: Any, lists: Any, per_tensor: bool = False) -> tuple[Tensor, Tensor]:
    norms = torch.stack([x.float().norm() for x in lists[0]])
    return norms.norm(), norms if per_tensor else torch.empty(0)


@_counted
def multi_tensor_scale(chunk: int, noop: Any, lists: Any, scale: float) -> None:
    for source, target in zip(*lists, strict=True):
        target.copy_(source * scale)


def _not_emulated(name: str) -> Callable[..., Any]:
    def raising(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"transformer_engine_torch.{name} is not emulated")

    return raising


def add_names(sources: str) -> None:
    """Give every name that Transformer Engine's sources take from here a function that raises."""
    for path in Path(sources).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        names = re.findall(r"\btex\.(\w+)", text)
        for block in re.findall(r"from transformer_engine_torch import (\([^)]*\)|[^\n]*)", text):
            names += re.findall(r"\b[A-Za-z_]\w*", block)
        for name in set(names) - globals().keys():
            globals()[name] = _not_emulated(name)
