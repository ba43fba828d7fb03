"""A model that widens its layers while they run computes what the widened model does, to the bit."""

from pathlib import Path

import pytest
import torch
from tiny import FAMILIES, save_tiny
from transformers import AutoModelForCausalLM

from nemo_reasoning.models.hf_config import in_dtype
from nemo_reasoning.models.widening import compute_in_float32

IDS = torch.arange(40)[None]


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layers_are_wide_only_while_they_run(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    held, wide = (AutoModelForCausalLM.from_pretrained(save_tiny(tmp_path, family), **in_dtype(dtype)) for _ in "ab")
    wide.float()
    weight = compute_in_float32(held)
    layers = held.model.layers.named_parameters()

    assert torch.equal(held(IDS).logits, wide(IDS).logits)
    assert torch.equal(held(IDS).logits, wide(IDS).logits), "a second time as well"
    assert {parameter.dtype for _, parameter in layers} == {dtype}
    assert all(torch.equal(weight(name), parameter) for name, parameter in wide.named_parameters())


@torch.no_grad()
def test_changes_are_made_in_float32_and_once(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "llama")
    held, wide = (AutoModelForCausalLM.from_pretrained(folder, **in_dtype(torch.bfloat16)) for _ in "ab")
    names = ("model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight")
    weight = compute_in_float32(held, dict.fromkeys(names, lambda values: values * 1.0001))
    wide.float()
    for name in names:
        wide.get_parameter(name).mul_(1.0001)

    assert torch.equal(held(IDS).logits, wide(IDS).logits)
    assert all(torch.equal(weight(name), wide.get_parameter(name)) for name in names)


@torch.no_grad()
def test_a_layer_that_fails_is_narrow_again() -> None:
    model = torch.nn.Sequential(torch.nn.ModuleList([torch.nn.Linear(4, 4, dtype=torch.bfloat16)]))
    compute_in_float32(model)
    with pytest.raises(RuntimeError):
        model[0][0](torch.zeros(1, 3))
    assert model[0][0].weight.dtype is torch.bfloat16
