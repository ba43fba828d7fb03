"""What a GPU would run, as far as a CPU can tell: the arguments of the flash kernels, and Liger's own numbers.

torch's flash kernel has no CPU version, so the operation behind `varlen_attn` is computed by a plain reference:
bounds, causality, grouping and scale are tested, the kernel's own numbers are not. Liger's kernels run themselves,
forward and backward, through Triton's interpreter, where `make kernels` has put them.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from nemo_reasoning.backend import torch_layers, varlen
from nemo_reasoning.backend.attention import Samples

KERNELS = Path(__file__).resolve().parents[3] / ".kernels"
LENGTHS = [5, 1, 9, 3]


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, causal: bool) -> torch.Tensor:
    """Attend within one sample, [t, h, d] over [t, g, d]."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=True)[0].transpose(0, 1)


def reference(q: Any, k: Any, v: Any, bounds: torch.Tensor, scale: float, causal: bool) -> torch.Tensor:
    spans = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
    parts = [attend(q[a:b], k[a:b], v[a:b], scale, causal) for a, b in spans if b > a]
    return torch.cat(parts)


@pytest.fixture
def cpu_varlen() -> Iterator[list[tuple[int, ...]]]:
    """Give torch's operation a CPU version for the length of a test; yields the calls' bounds."""
    calls: list[tuple[int, ...]] = []
    assert varlen.varlen_attention(dropout=0.0) is not None  # which defines the operation
    library = torch.library.Library("torch_attn", "IMPL")

    def forward(q, k, v, cu_q, cu_k, max_q, max_k, causal, scale, window, gqa, *_):  # type: ignore[no-untyped-def]
        assert torch.equal(cu_q, cu_k)
        assert max_q >= int(cu_q.diff().max())
        calls.append(tuple(cu_q.tolist()))
        out = reference(q, k, v, cu_q, scale, causal or window == [-1, 0])
        return out, q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32), torch.zeros(2, dtype=torch.uint64)

    library.impl("_varlen_attn", forward, "CPU")
    yield calls
    library._destroy()


def layer(**changes: Any) -> Any:
    attention = torch_layers.TorchAttention.__new__(torch_layers.TorchAttention)
    torch.nn.Module.__init__(attention)
    attention.softmax_scale, attention.dropout = None, 0.0
    for key, value in changes.items():
        setattr(attention, key, value)
    return attention


def inputs(dtype: torch.dtype = torch.bfloat16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(sum(LENGTHS), heads, 8, generator=generator).to(dtype) for heads in (4, 2, 2)]


@pytest.mark.parametrize("scale", [None, 0.2])
def test_torchs_kernel_is_asked_for_what_the_padded_attention_computes(
    cpu_varlen: list[tuple[int, ...]], scale: float | None
) -> None:
    q, k, v = inputs()
    kernel = varlen.varlen_attention(dropout=0.0)
    assert kernel is not None
    samples = Samples(LENGTHS)
    factor = 8**-0.5 if scale is None else scale
    found = kernel(q, k, v, bounds=samples.bounds(q.device), longest=max(LENGTHS), scale=factor)
    padded = layer(softmax_scale=scale)._attend(*(x.float() for x in (q, k, v)), samples)

    assert cpu_varlen == [(0, 5, 6, 15, 18)]
    torch.testing.assert_close(found.float(), padded, rtol=0.02, atol=0.02)


def test_a_release_of_torch_without_scale_and_groups(cpu_varlen: list[tuple[int, ...]]) -> None:
    q, k, v = inputs(torch.float32)

    def first_release(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False):  # type: ignore[no-untyped-def]
        assert is_causal
        return reference(query, key, value, cu_seq_q, 8**-0.5, is_causal)

    bounds = Samples(LENGTHS).bounds(q.device)
    found = varlen._torch_varlen(first_release, q, k, v, bounds=bounds, longest=9, scale=0.2)

    torch.testing.assert_close(found, reference(q, k, v, bounds, 0.2, causal=True))


def test_flash_attn_is_asked_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = inputs(torch.float32)
    asked: dict[str, Any] = {}

    def flash_attn_varlen_func(q, k, v, cu_q, cu_k, max_q, max_k, **options):  # type: ignore[no-untyped-def]
        asked.update(options, longest=(max_q, max_k))
        return reference(q, k, v, cu_q, options["softmax_scale"], options["causal"])

    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=flash_attn_varlen_func))
    varlen._function.cache_clear()
    kernel = varlen.varlen_attention(dropout=0.1)
    varlen._function.cache_clear()
    assert kernel is not None
    samples = Samples(LENGTHS)
    found = kernel(q, k, v, bounds=samples.bounds(q.device), longest=9, scale=0.3)

    assert asked == {"dropout_p": 0.1, "softmax_scale": 0.3, "causal": True, "deterministic": False, "longest": (9, 9)}
    torch.testing.assert_close(found, layer(softmax_scale=0.3)._attend(q, k, v, samples))


def test_no_kernel_of_torch_drops_weights_out() -> None:
    assert varlen.varlen_attention(dropout=0.1) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_device_that_is_no_cpu_takes_the_kernel_in_half_precision_only(dtype: torch.dtype) -> None:
    """On the meta device, where tensors have shapes and no values."""
    q, k, v = (x.to("meta") for x in inputs(dtype))
    mixed = layer()._attend(q, k, v, Samples(LENGTHS))

    assert mixed.shape == q.shape
    assert mixed.is_meta


INTERPRETED = """
import torch, torch.nn.functional as F
import triton.runtime.interpreter as interpreter, triton.language as tl, numpy as np
convert = interpreter._implicit_cvt
def with_floats(arg):  # the interpreter hands kernels plain floats, on which they call .to
    if isinstance(arg, float):
        return tl.tensor(interpreter.TensorHandle(np.array([arg], dtype=np.float32), tl.float32), tl.float32)
    return convert(arg)
interpreter._implicit_cvt = with_floats
import liger_kernel.ops.rms_norm as norm
norm.rsqrt = lambda x: tl.rsqrt(x)  # CUDA library functions have no CPU version
from nemo_reasoning.backend import kernels
kernels.liger = lambda operation, x: kernels._liger(operation)
torch.manual_seed(0)
for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 5e-3)):  # its bfloat16 products are wrong
    def close(found, wanted):
        torch.testing.assert_close(found.float(), wanted.float(), rtol=tolerance, atol=tolerance)
    def compare(function, plain, *tensors):
        mine = [t.clone().to(dtype).requires_grad_() for t in tensors]
        theirs = [t.detach().double().requires_grad_() for t in mine]
        found, wanted = function(*mine), plain(*theirs)
        gradient = torch.randn(found.shape).to(dtype)
        found.backward(gradient)
        wanted.backward(gradient.double())
        close(found, wanted)
        for one, other in zip(mine, theirs):
            close(one.grad, other.grad)
    assert all(kernels._liger(name) is not None for name in kernels._LIGER)
    compare(lambda x, w: kernels.rms_norm(x, w, 1e-5), lambda x, w: F.rms_norm(x, (48,), w, 1e-5),
            torch.randn(5, 2, 48), torch.randn(48))
    compare(kernels.swiglu, lambda x: F.silu(x[..., :24]) * x[..., 24:], torch.randn(5, 2, 48))
logits, labels = torch.randn(7, 50), torch.randint(0, 50, (7,))
wanted = logits.clone().double().requires_grad_()
expected = F.cross_entropy(wanted, labels, reduction="none")
expected.sum().backward()
losses = kernels.cross_entropy(logits, labels)
torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-5, atol=1e-5)
torch.testing.assert_close(logits.double(), wanted.grad, rtol=1e-5, atol=1e-5)
assert not logits.requires_grad
print("equal")
"""


@pytest.mark.skipif(not KERNELS.is_dir(), reason="`make kernels` has not been run")
def test_ligers_kernels_in_tritons_interpreter() -> None:
    paths = os.pathsep.join([str(KERNELS), str(KERNELS.parent)])
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip().endswith("equal"), done.stderr[-3000:]
