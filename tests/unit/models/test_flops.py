"""The formula against torch's own count of a real model's operations."""

import pytest
import torch
from architectures import SMALL, hf_config, listed
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaForCausalLM

from nemo_reasoning.models.flops import BatchCounts, step_flops, training_flops
from nemo_reasoning.models.sizes import linear_shapes

BATCH, LENGTH, RANK = 2, 16, 4


def tiny_llama() -> LlamaForCausalLM:
    """Return a random model of `SMALL` whose attention computes every pair of positions."""
    return LlamaForCausalLM(hf_config(SMALL))  # type: ignore[no-untyped-call]


def counted(model: torch.nn.Module) -> int:
    """Return the operations of one forward and backward pass."""
    ids = torch.zeros(BATCH, LENGTH, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids).logits.sum().backward()
    return int(counter.get_total_flops()) - rotary_flops()


def rotary_flops() -> int:
    """Return what the rotary angles cost, an outer product that torch counts as a matmul."""
    return 2 * LENGTH * SMALL.head_dim // 2


def formula(*, adapter_weights: int | None) -> float:
    """Return our count where every position sees all positions, as eager attention computes it."""
    tokens = BATCH * LENGTH
    return training_flops(
        shape=SMALL, tokens=tokens, logit_tokens=tokens, context=LENGTH, adapter_weights=adapter_weights
    )


def test_full_fine_tuning_matches_torchs_count() -> None:
    assert counted(tiny_llama()) == formula(adapter_weights=None)


def test_lora_matches_torchs_count_but_for_the_lowest_layers_input_gradient() -> None:
    config = LoraConfig(r=RANK, target_modules=["o_proj", "down_proj"])
    linears = linear_shapes(SMALL)
    weights = SMALL.num_layers * RANK * sum(linears["linear_proj"] + linears["linear_fc2"])

    # With nothing adapted below o_proj in the lowest layer, its attention needs no backward pass.
    inputs, outputs = linears["linear_qkv"]
    lowest = 2 * inputs * outputs + 2 * RANK * SMALL.hidden_size + 2 * SMALL.hidden_size**2
    attention = 8 * SMALL.num_attention_heads * SMALL.head_dim * LENGTH
    saved = BATCH * LENGTH * (lowest + attention)
    assert counted(get_peft_model(tiny_llama(), config)) == formula(adapter_weights=weights) - saved


def test_a_frozen_base_costs_two_thirds_where_weights_dominate() -> None:
    shape = listed("llama3_8b")

    def cost(adapter: int | None) -> float:
        return training_flops(shape=shape, tokens=1000, logit_tokens=1000, context=1, adapter_weights=adapter)

    assert cost(0) / cost(None) == pytest.approx(2 / 3, rel=1e-3)


def test_a_step_counts_tokens_that_are_there_and_logits_that_are_needed() -> None:
    counts = BatchCounts(samples=4, tokens=4000, nonpad_tokens=2000, supervised_tokens=700)
    padded = BatchCounts(samples=4, tokens=8000, nonpad_tokens=2000, supervised_tokens=700)
    expected = training_flops(shape=SMALL, tokens=2000, logit_tokens=700, context=250.5, adapter_weights=None)

    assert step_flops(counts, shape=SMALL, adapter_weights=None) == expected
    assert step_flops(padded, shape=SMALL, adapter_weights=None) == expected
