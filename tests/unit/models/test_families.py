"""Every family reads its config.json as transformers does, and NeMo's configuration has the same shape."""

from dataclasses import asdict
from pathlib import Path

import pytest
from tiny import save_tiny_llama

from nemo_reasoning.errors import ModelSourceError
from nemo_reasoning.models.families import FAMILIES, family_of, problems_of
from nemo_reasoning.models.hf_config import read_hf_config
from nemo_reasoning.models.sizes import count_parameters

LLAMA31 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@pytest.mark.usefixtures("nemo_cpu")
@pytest.mark.parametrize("rope_scaling", [None, {"rope_type": "llama3", **LLAMA31}])
def test_nemos_configuration_is_that_of_its_importer(tmp_path: Path, rope_scaling: dict[str, object] | None) -> None:
    path = save_tiny_llama(tmp_path / "hf", rope_scaling=rope_scaling)
    family = family_of(read_hf_config(path), name="tiny")
    shape = family.architecture(read_hf_config(path))

    ours, imported = family.nemo_config(shape), family.importer(path).config
    same = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels")
    same += ("layernorm_epsilon", "rotary_base", "share_embeddings_and_output_weights", "vocab_size")
    if rope_scaling:
        same += ("scale_factor", "low_freq_factor", "high_freq_factor", "old_context_len")
    assert {name: getattr(ours, name) for name in same} == {name: getattr(imported, name) for name in same}


def test_the_shape_counts_the_parameters_that_transformers_makes(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    path = save_tiny_llama(tmp_path / "hf")
    config = read_hf_config(path)
    model = AutoModelForCausalLM.from_pretrained(path)

    shape = family_of(config, name="tiny").architecture(config)
    assert count_parameters(shape) == sum(parameter.numel() for parameter in model.parameters())
    assert asdict(shape)["num_query_groups"] == 2


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelSourceError, match="model.source=some/model is a 'mamba' model.*Llama"):
        family_of({"model_type": "mamba"}, name="some/model")
    assert all(family.title in problems_of({})[0] for family in FAMILIES.values())


def test_everything_in_the_way_is_said_at_once() -> None:
    broken = {"model_type": "llama", "attention_bias": True, "hidden_act": "gelu", "pretraining_tp": 2}
    problems = problems_of(broken)

    assert len(problems) == 3 + 5  # and five sizes that are missing
    with pytest.raises(ModelSourceError) as caught:
        family_of(broken, name="x")
    assert str(caught.value).count("model.source=x") == len(problems)
