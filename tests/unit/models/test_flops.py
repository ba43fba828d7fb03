"""The formula against torch's own count of a real model's operations."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from nemo_reasoning.data.counts import BatchCounts
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.models.flops import LlamaShape, lora_weights, step_flops, training_flops

BATCH, LENGTH, RANK = 2, 16, 4
SHAPE = LlamaShape(layers=3, hidden=64, ffn=96, heads=4, kv_heads=2, head_dim=16, vocab=128)
LLAMA3_8B = LlamaShape(layers=32, hidden=4096, ffn=14336, heads=32, kv_heads=8, head_dim=128, vocab=128256)


def tiny_llama() -> LlamaForCausalLM:
    """Return a random model of `SHAPE` whose attention computes every pair of positions."""
    config = LlamaConfig(  # type: ignore[no-untyped-call]
        num_hidden_layers=SHAPE.layers,
        hidden_size=SHAPE.hidden,
        intermediate_size=SHAPE.ffn,
        num_attention_heads=SHAPE.heads,
        num_key_value_heads=SHAPE.kv_heads,
        vocab_size=SHAPE.vocab,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)  # type: ignore[no-untyped-call]


def counted(model: torch.nn.Module) -> int:
    """Return the operations of one forward and backward pass."""
    ids = torch.zeros(BATCH, LENGTH, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids).logits.sum().backward()
    return int(counter.get_total_flops()) - rotary_flops()


def rotary_flops() -> int:
    """Return what the rotary angles cost, an outer product that torch counts as a matmul."""
    return 2 * LENGTH * SHAPE.head_dim // 2


def formula(*, adapter_weights: int | None) -> float:
    """Return our count where every position sees all positions, as eager attention computes it."""
    tokens = BATCH * LENGTH
    return training_flops(
        shape=SHAPE, tokens=tokens, logit_tokens=tokens, context=LENGTH, adapter_weights=adapter_weights
    ).model


def test_full_fine_tuning_matches_torchs_count() -> None:
    assert counted(tiny_llama()) == formula(adapter_weights=None)


def test_lora_matches_torchs_count_but_for_the_lowest_layers_input_gradient() -> None:
    config = LoraConfig(r=RANK, target_modules=["o_proj", "down_proj"])
    weights = lora_weights(SHAPE, dim=RANK, targets=["linear_proj", "linear_fc2"])

    # With nothing adapted below o_proj in the lowest layer, its attention needs no backward pass.
    inputs, outputs = SHAPE.linears["linear_qkv"]
    lowest = 2 * inputs * outputs + 2 * RANK * SHAPE.hidden + 2 * SHAPE.hidden**2
    attention = 8 * SHAPE.heads * SHAPE.head_dim * LENGTH
    saved = BATCH * LENGTH * (lowest + attention)
    assert counted(get_peft_model(tiny_llama(), config)) == formula(adapter_weights=weights) - saved


def test_a_frozen_base_costs_two_thirds_where_weights_dominate() -> None:
    def cost(adapter: int | None) -> float:
        return training_flops(shape=LLAMA3_8B, tokens=1000, logit_tokens=1000, context=1, adapter_weights=adapter).model

    assert cost(0) / cost(None) == pytest.approx(2 / 3, rel=1e-3)


def test_weights_of_llama3_8b_add_up_to_the_published_parameter_count() -> None:
    norms = (2 * LLAMA3_8B.layers + 1) * LLAMA3_8B.hidden

    assert LLAMA3_8B.layer_weights + 2 * LLAMA3_8B.head_weights + norms == 8_030_261_248


def test_recomputation_is_work_of_the_machine_only() -> None:
    plain, again = (
        training_flops(shape=SHAPE, tokens=10, logit_tokens=0, context=5, adapter_weights=None, recompute=recompute)
        for recompute in (False, True)
    )

    assert again.model == plain.model == plain.hardware
    assert again.hardware - plain.hardware == plain.forward  # no head here, so all of it runs again


def test_a_step_counts_tokens_that_are_there_and_logits_that_are_needed() -> None:
    counts = BatchCounts(samples=4, tokens=4000, nonpad_tokens=2000, supervised_tokens=700)
    padded = BatchCounts(samples=4, tokens=8000, nonpad_tokens=2000, supervised_tokens=700)
    expected = training_flops(shape=SHAPE, tokens=2000, logit_tokens=700, context=250.5, adapter_weights=None).model

    assert step_flops(counts, shape=SHAPE, adapter_weights=None) == expected
    assert step_flops(padded, shape=SHAPE, adapter_weights=None) == expected


def test_shape_reads_a_configuration() -> None:
    class Config:
        num_layers, hidden_size, ffn_hidden_size, num_attention_heads, num_query_groups = 3, 64, 96, 4, 2

    assert LlamaShape.of(Config(), vocab_size=128) == SHAPE


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(ConfigError, match="q_proj"):
        lora_weights(SHAPE, dim=RANK, targets=["q_proj"])
