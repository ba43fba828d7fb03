"""Packed layers against the model's own, for every family they know."""

import copy
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PhiConfig, Qwen2Config, Qwen3Config

from nemo_reasoning.inference.hf import attention, packed

SHAPE: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_attention_heads": 6,
    "num_hidden_layers": 2,
    "vocab_size": 160,
}
FAMILIES = {
    "llama": LlamaConfig(**SHAPE, num_key_value_heads=2),
    "biases": LlamaConfig(**SHAPE, num_key_value_heads=6, attention_bias=True, mlp_bias=True),
    "mistral": MistralConfig(**SHAPE, num_key_value_heads=3, sliding_window=None),
    "qwen2": Qwen2Config(**SHAPE, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16),
    "another": PhiConfig(**SHAPE),
}


def random_model(name: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(FAMILIES[name], attn_implementation=attention.register())
    for weight in model.parameters():  # biases and norms too: they begin as zeros and ones
        torch.nn.init.normal_(weight, 0.1, 0.3)
    return model.to(dtype).eval()


def written(model: Any) -> torch.Tensor:
    ids = torch.tensor([[5, 9, 40, 7, 100, 3, 77]])
    with torch.inference_mode():
        tokens: torch.Tensor = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, eos_token_id=None
        )
    return tokens


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_layers_compute_what_the_models_own_do(name: str) -> None:
    plain = random_model(name, torch.float32)
    model = copy.deepcopy(plain)
    packed.pack(model)
    ids = torch.randint(0, 160, (3, 19), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-4)
    assert torch.equal(written(model), written(plain))
    kinds = {type(module).__name__ for module in model.modules()}
    assert "Linear" not in kinds
    assert ("Attention" in kinds) == ("GatedMLP" in kinds) == (name != "another")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_whatever_the_number_of_rows_beside_it(dtype: torch.dtype) -> None:
    layer = packed.PackedLinear(torch.nn.Linear(576, 320, dtype=dtype), torch.nn.Linear(576, 64, dtype=dtype))
    hidden = torch.randn(40, 576, dtype=dtype)
    with torch.inference_mode():
        alone = layer(hidden[:2])
        assert all(torch.equal(layer(hidden[:rows])[:2], alone) for rows in range(2, 41))
