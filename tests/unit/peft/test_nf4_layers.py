"""Quantised linears compute what Megatron's do with the dequantised weight, on one rank and on two."""

from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parallel import tensor_parallel_group

from nemo_reasoning.peft import nf4

HIDDEN, INNER, RANKS = 64, 176, 2


def config() -> Any:
    """Return a configuration whose linears are initialised from one seed on all ranks."""
    from megatron.core.transformer.transformer_config import TransformerConfig

    return TransformerConfig(
        num_layers=1,
        hidden_size=HIDDEN,
        ffn_hidden_size=INNER,
        num_attention_heads=4,
        use_cpu_initialization=True,
        add_bias_linear=False,
        normalization="RMSNorm",
        params_dtype=torch.float32,
    )


def initialise(weight: torch.Tensor) -> torch.Tensor:
    """Fill a weight so that tanh bends its output without flattening it."""
    return torch.nn.init.normal_(weight, std=0.1)


def pending() -> tuple[Any, Any]:
    """Return a first linear, and a second one over its outputs, which wait for their weights."""
    from nemo_reasoning.peft.layers import Nf4LayerNormColumnParallelLinear, Nf4RowParallelLinear

    shared = {"config": config(), "bias": False, "init_method": initialise, "skip_bias_add": False}
    first = Nf4LayerNormColumnParallelLinear(HIDDEN, INNER, target="linear_qkv", **shared)
    second = Nf4RowParallelLinear(INNER, HIDDEN, target="linear_fc2", input_is_parallel=True, **shared)
    return first, second


def build() -> tuple[Any, Any]:
    """Return them with their weights."""
    linears = pending()
    for linear, weight in zip(linears, original(), strict=True):
        linear.weight.fill(weight)
    return linears


def passes(first: Any, second: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an output [s, b, h] and the gradient of the input."""
    x = torch.randn(5, 2, HIDDEN, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = second(torch.tanh(first(x)[0]))[0]
    y.square().sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


def rank(number: int, folder: Path) -> None:
    """Compute on one of two ranks."""
    with tensor_parallel_group(folder, number=number, size=RANKS):
        torch.save(passes(*build()), folder / f"rank{number}.pt")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """Hold a process group of one rank."""
    with tensor_parallel_group(tmp_path):
        yield


def original() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights that `build` quantises."""
    torch.manual_seed(3)
    first = initialise(torch.empty(INNER, HIDDEN))
    return first, initialise(torch.empty(HIDDEN, INNER))


def expected() -> tuple[torch.Tensor, torch.Tensor]:
    """Return what plain torch computes with the dequantised weights."""
    one, two = (nf4.dequantize(*nf4.quantize(weight)) for weight in original())
    norm = torch.ones(HIDDEN)
    return passes(
        lambda x: (F.linear(F.rms_norm(x, (HIDDEN,), norm, 1e-5), one), None),
        lambda x: (F.linear(x, two), None),
    )


def test_forward_and_backward_are_those_of_the_dequantised_weights(alone: None) -> None:
    for found, wanted in zip(passes(*build()), expected(), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.slow
def test_two_tensor_parallel_ranks_compute_what_one_does(tmp_path: Path) -> None:
    other = get_context("spawn").Process(target=rank, args=(1, tmp_path))
    other.start()
    rank(0, tmp_path)
    other.join()
    assert other.exitcode == 0
    for number in range(RANKS):
        found = torch.load(tmp_path / f"rank{number}.pt")
        for mine, whole in zip(found, expected(), strict=True):
            torch.testing.assert_close(mine, whole, atol=1e-4, rtol=1e-5)


def test_only_packed_weights_are_held(alone: None) -> None:
    first, second = build()

    assert [name for name, _ in first.named_parameters()] == ["layer_norm_weight"]
    assert list(second.parameters()) == []
    assert first.weight.dtype == torch.uint8
    assert first.weight.numel() == HIDDEN * INNER // 2
    assert {name for name in first.state_dict() if "weight" in name} == {"layer_norm_weight"}
    kept: list[torch.Tensor] = []
    x = torch.randn(3, 1, HIDDEN, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        first(x)
    assert not [tensor.shape for tensor in kept if tensor.numel() >= HIDDEN * INNER]


def test_casting_a_model_leaves_the_scales_alone(alone: None) -> None:
    first, _ = build()
    before = nf4.dequantize(first.weight, first.quant_state)
    first.bfloat16()

    assert first.layer_norm_weight.dtype == torch.bfloat16
    assert torch.equal(nf4.dequantize(first.weight, first.quant_state), before)
    assert first(torch.randn(3, 1, HIDDEN).bfloat16())[0].dtype == torch.bfloat16


def test_a_pending_weight_takes_no_memory_until_it_is_filled(alone: None) -> None:
    first, second = pending()
    first.bfloat16()
    assert (first.weight.is_meta, second.weight.is_meta, first.layer_norm_weight.is_meta) == (True, True, False)
    assert first.weight.shape == (INNER, HIDDEN)
    for linear, weight in zip((first, second), original(), strict=True):
        linear.weight.fill(weight)
    first.float()

    for found, wanted in zip(passes(first, second), expected(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_lora_targets_alone_are_quantised() -> None:
    from megatron.core.tensor_parallel.layers import RowParallelLinear

    from nemo_reasoning.peft.layers import Nf4LayerNormColumnParallelLinear, nf4_layer_spec

    layer = nf4_layer_spec(config(), targets=["linear_qkv"]).submodules
    assert layer.self_attention.submodules.linear_qkv.module is Nf4LayerNormColumnParallelLinear
    assert layer.self_attention.submodules.linear_proj is RowParallelLinear
    assert layer.mlp.submodules.linear_fc2 is RowParallelLinear
