"""Sizes that follow from a shape equal those of the models others build from it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import LISTED, SMALL, hf_config, listed, weightless
from peft import LoraConfig, get_peft_model
from transformers import Phi3Config, Phi3ForCausalLM

from nemo_reasoning.config.model import LORA_TARGETS, PeftScheme, PeftSettings, Start
from nemo_reasoning.config.trainer import Recompute
from nemo_reasoning.errors import ModelSourceError
from nemo_reasoning.models.sizes import (
    architecture_from_hf,
    count_linear_weights,
    count_lora_parameters,
    count_parameters,
    flops_adapter_weights,
    linear_shapes,
)
from nemo_reasoning.training.memory.static import trained_parameters
from nemo_reasoning.training.memory.workload import Workload

# Phi-3 has Llama's layers with the same projections fused as Megatron fuses them.
FUSED = {"linear_qkv": "qkv_proj", "linear_proj": "o_proj", "linear_fc1": "gate_up_proj", "linear_fc2": "down_proj"}

LORA = PeftSettings(
    PeftScheme.lora,
    dim=6,
    alpha=12,
    dropout=0.0,
    target_modules=list(LORA_TARGETS),
    rslora=True,
    start_from=None,
    start=Start.adapter,
)


def fused_model() -> Phi3ForCausalLM:
    """Return a model of `SMALL` with fused projections."""
    config = Phi3Config(  # type: ignore[no-untyped-call]
        num_hidden_layers=SMALL.num_layers,
        hidden_size=SMALL.hidden_size,
        intermediate_size=SMALL.ffn_hidden_size,
        num_attention_heads=SMALL.num_attention_heads,
        num_key_value_heads=SMALL.num_query_groups,
        vocab_size=SMALL.vocab_size,
        pad_token_id=0,
    )
    return Phi3ForCausalLM(config)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("name", LISTED)
def test_parameters_are_those_of_hugging_faces_model(name: str) -> None:
    model, shape = weightless(listed(name)), listed(name)
    layers = [module for module in model.model.layers.modules() if isinstance(module, torch.nn.Linear)]

    assert count_parameters(shape) == model.num_parameters()
    assert count_linear_weights(shape) == sum(layer.weight.numel() for layer in layers)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("smollm2_135m", 134_515_008),
        ("llama32_1b", 1_235_814_400),
        ("llama32_3b", 3_212_749_824),
        ("llama3_8b", 8_030_261_248),
        ("llama31_nemotron_nano_8b", 8_030_261_248),
        ("llama2_13b", 13_015_864_320),
        ("llama31_70b", 70_553_706_496),
    ],
)
def test_parameters_are_the_published_ones(name: str, parameters: int) -> None:
    assert count_parameters(listed(name)) == parameters


@pytest.mark.parametrize("name", LISTED)
def test_a_listed_shape_is_what_its_config_json_says(name: str, tmp_path: Path) -> None:
    hf_config(listed(name)).save_pretrained(tmp_path)

    assert architecture_from_hf(tmp_path) == listed(name)


def test_the_packaged_models_shape_is_the_listed_one(smollm2_hf: Path) -> None:
    stored = pytest.approx(1e-5)  # GGUF holds it in single precision

    assert architecture_from_hf(smollm2_hf) == replace(listed("smollm2_135m"), norm_epsilon=stored)


def test_what_older_files_leave_out_follows_from_the_rest(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "llama", "num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 96, '
        '"num_attention_heads": 4, "vocab_size": 128, "max_position_embeddings": 512, "rms_norm_eps": 1e-5}'
    )

    assert architecture_from_hf(tmp_path) == replace(SMALL, num_query_groups=4)


def test_a_shape_nemo_cannot_hold_is_refused(tmp_path: Path) -> None:
    config = hf_config(SMALL)
    config.rope_scaling = {"rope_type": "linear", "factor": 2.0}
    config.save_pretrained(tmp_path)

    with pytest.raises(ModelSourceError, match="linear"):
        architecture_from_hf(tmp_path)


def test_linears_are_those_lora_can_adapt() -> None:
    modules = dict(fused_model().model.layers[0].named_modules())
    sizes = {
        name.rpartition(".")[2]: (module.in_features, module.out_features)
        for name, module in modules.items()
        if isinstance(module, torch.nn.Linear)
    }

    assert tuple(linear_shapes(SMALL)) == LORA_TARGETS
    assert {FUSED[name]: size for name, size in linear_shapes(SMALL).items()} == sizes


@pytest.mark.parametrize("targets", [list(LORA_TARGETS), ["linear_qkv", "linear_proj"], ["linear_fc1"]])
def test_lora_parameters_are_those_of_peft(targets: list[str]) -> None:
    settings = replace(LORA, target_modules=targets)
    adapted = get_peft_model(fused_model(), LoraConfig(r=6, target_modules=[FUSED[target] for target in targets]))

    assert count_lora_parameters(SMALL, settings) == adapted.get_nb_trainable_parameters()[0]


def trained(peft: PeftSettings) -> int:
    """Return what the planner says is trained."""
    targets, sizes = tuple(peft.target_modules), {"seq_length": 8, "micro_batch_size": 1}
    adapter = {"scheme": peft.scheme, "target_modules": targets, "dim": peft.dim, "dropout": peft.dropout}
    return trained_parameters(Workload(shape=SMALL, precision="32", recompute=Recompute.none, **adapter, **sizes))


@pytest.mark.parametrize("targets", [list(LORA_TARGETS), ["linear_qkv", "linear_fc2"]])
def test_dora_has_a_magnitude_for_each_output_besides(targets: list[str]) -> None:
    settings = replace(LORA, scheme=PeftScheme.dora, target_modules=targets)
    config = LoraConfig(r=6, target_modules=[FUSED[target] for target in targets], use_dora=True)
    adapted = get_peft_model(fused_model(), config)

    assert trained(settings) == adapted.get_nb_trainable_parameters()[0]
    assert flops_adapter_weights(SMALL, settings) == count_lora_parameters(SMALL, settings)


def test_full_fine_tuning_trains_every_parameter() -> None:
    settings = replace(LORA, scheme=PeftScheme.none, dim=0, alpha=0, target_modules=[])

    assert trained(settings) == count_parameters(SMALL)
    assert flops_adapter_weights(SMALL, settings) is None
