"""The fused operations of the torch layers compute what NeMo's and Megatron's compute step by step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parallel import tensor_parallel_group
from torch.autograd import gradcheck

from nemo_reasoning.backend.kernels import apply_rotary_pos_emb, rms_norm, swiglu


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_swiglu() -> None:
    x = _random(5, 2, 12).requires_grad_()
    gate, up = x.chunk(2, dim=-1)
    torch.testing.assert_close(swiglu(x), F.silu(gate) * up)
    assert gradcheck(swiglu, x)
    bias = _random(12)
    torch.testing.assert_close(swiglu(x, bias), swiglu(x + bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm(dtype: torch.dtype) -> None:
    x, weight, gradient = (_random(*shape).to(dtype) for shape in ((7, 2, 48), (48,), (7, 2, 48)))
    x.requires_grad_()
    reference = x.detach().double().requires_grad_()
    found, wanted = rms_norm(x, weight, 1e-5), F.rms_norm(reference, (48,), weight.double(), 1e-5)
    found.backward(gradient)
    wanted.backward(gradient.double())
    tolerance = {"rtol": 0.02, "atol": 0.02} if dtype is torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found.double(), wanted, **tolerance)
    torch.testing.assert_close(x.grad.double(), reference.grad, **tolerance)


def test_a_weight_that_is_trained_gets_its_gradient() -> None:
    x, weight = _random(3, 8).float(), _random(8).float().requires_grad_()
    rms_norm(x, weight, 1e-5).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("frozen_input", [False, True])
def test_adapted_linear(dropout: float, frozen_input: bool) -> None:
    from nemo_reasoning.backend.fused_lora import adapted_linear

    x, weight = _random(4, 2, 6).requires_grad_(not frozen_input), _random(5, 6)
    down, up = _random(3, 6).requires_grad_(), _random(5, 3).requires_grad_()

    def apply(x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return adapted_linear(x, down=down, up=up, weight=lambda dtype: weight, scale=1.5, dropout=dropout)

    torch.manual_seed(1)
    seen = torch.native_dropout(x.reshape(-1, 6), dropout, True)[0].view_as(x)
    torch.testing.assert_close(apply(x, down, up), F.linear(x, weight) + 1.5 * F.linear(F.linear(seen, down), up))
    assert gradcheck(apply, (x, down, up))


def test_an_adapted_linear_of_nemo(nemo_cpu: None, tmp_path: Path) -> None:
    from megatron.core.transformer.transformer_config import TransformerConfig
    from nemo.collections.llm.peft.lora import LoRALinear

    from nemo_reasoning.backend.fused_lora import FusedLoRALinear

    config = TransformerConfig(
        num_layers=1,
        hidden_size=16,
        num_attention_heads=2,
        add_bias_linear=False,
        normalization="RMSNorm",
        use_cpu_initialization=True,
    )
    with tensor_parallel_group(tmp_path):
        results = [_passes(wrapper, config) for wrapper in (LoRALinear, FusedLoRALinear)]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def _passes(wrapper: Any, config: Any) -> tuple[Any, ...]:
    """Return output and gradients."""
    from nemo.collections.llm.peft.utils import ParallelLinearAdapter

    from nemo_reasoning.backend.torch_layers import LayerNormColumnParallelLinear

    torch.manual_seed(2)
    options = {"config": config, "bias": False, "skip_bias_add": False, "init_method": torch.nn.init.normal_}
    linear = LayerNormColumnParallelLinear(16, 24, **options)
    linear.weight.requires_grad = False
    linear.return_layernorm_output = True
    adapter = ParallelLinearAdapter(
        *(16, 24, 4),
        base_linear_name="linear_qkv",
        activation="identity",
        row_init_method="normal",
        model_parallel_config=config,
        alpha=6,
        dropout_position="pre",
    )
    x = torch.randn(7, 1, 16).requires_grad_()
    output, bias = wrapper(linear, adapter)(x)
    assert bias is None
    output.square().sum().backward()
    return output, x.grad, *(parameter.grad for parameter in adapter.parameters())


@pytest.mark.parametrize("packed", [False, True])
def test_rotary_embedding_equals_megatrons(nemo_cpu: None, packed: bool) -> None:
    from megatron.core.models.common.embeddings import rope_utils

    angles = torch.outer(torch.arange(8.0), torch.tensor([1.0, 0.1, 0.01]))
    freqs = torch.cat([angles, angles], dim=-1)[:, None, None]
    x = _random(*(13, 2, 6) if packed else (8, 3, 2, 6)).requires_grad_()
    bounds = torch.tensor([0, 5, 13], dtype=torch.int32) if packed else None
    if packed:
        one = SimpleNamespace(size=lambda: 1, rank=lambda: 0)
        wanted = rope_utils._apply_rotary_pos_emb_thd(x, bounds, freqs, cp_group=one)
    else:
        wanted = rope_utils._apply_rotary_pos_emb_bshd(x, freqs)
    found = apply_rotary_pos_emb(x, freqs, None, bounds)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        *(torch.autograd.grad(turned.square().sum(), x) for turned in (found, wanted)), rtol=1e-6, atol=1e-6
    )
    assert gradcheck(lambda x: apply_rotary_pos_emb(x, freqs, None, bounds), x)


def test_rotary_tables_follow_the_batch_and_the_dtype() -> None:
    freqs = torch.arange(8.0)[:, None, None, None].expand(-1, -1, -1, 2)
    long, short = torch.ones(8, 1, 1, 2), torch.ones(4, 1, 1, 2)
    whole = apply_rotary_pos_emb(long, freqs, None)
    torch.testing.assert_close(apply_rotary_pos_emb(short, freqs, None), whole[:4])
    assert apply_rotary_pos_emb(short.bfloat16(), freqs, None).dtype == torch.bfloat16
