"""Every family reads its config.json as transformers does, and refuses what NeMo would hold as something else."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tiny import FAMILIES as SHAPES
from tiny import save_tiny, save_tiny_llama

from nemo_reasoning.errors import ConfigError, ModelSourceError
from nemo_reasoning.models.families import FAMILIES, family_named, family_of, problems_of
from nemo_reasoning.models.hf_config import read_hf_config
from nemo_reasoning.models.importer import convert

LLAMA31 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
SIZES = {
    **{"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "vocab_size": 128, "sliding_window": None},
}


@pytest.mark.usefixtures("nemo_cpu")
@pytest.mark.parametrize("rope_scaling", [None, {"rope_type": "llama3", **LLAMA31}])
def test_nemos_configuration_is_that_of_its_importer(tmp_path: Path, rope_scaling: dict[str, object] | None) -> None:
    path = save_tiny_llama(tmp_path / "hf", rope_scaling=rope_scaling)
    family = family_of(read_hf_config(path), name="tiny")
    shape = family.architecture(read_hf_config(path))

    ours, imported = family.nemo_config(shape), family.importer(path).config
    same = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels")
    same += ("layernorm_epsilon", "rotary_base", "share_embeddings_and_output_weights", "vocab_size", "seq_length")
    if rope_scaling:
        same += ("scale_factor", "low_freq_factor", "high_freq_factor", "old_context_len")
    assert {name: getattr(ours, name) for name in same} == {name: getattr(imported, name) for name in same}


@pytest.mark.usefixtures("nemo_cpu")
def test_a_base_that_names_no_dtype_is_imported_too(tmp_path: Path) -> None:
    path = save_tiny_llama(tmp_path / "hf")
    given = {key: value for key, value in read_hf_config(path).items() if key not in ("dtype", "torch_dtype")}
    (path / "config.json").write_text(json.dumps(given))
    convert(path, tmp_path / "nemo", "float32")
    assert (tmp_path / "nemo" / "weights" / "metadata.json").is_file()


@pytest.mark.parametrize("name", SHAPES)
def test_what_config_json_leaves_out_is_what_transformers_takes(name: str) -> None:
    from transformers import AutoConfig

    given = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"} | {"num_attention_heads": 32}
    config = AutoConfig.for_model(name, **given)
    shape = family_of({"model_type": name, **given}, name="x").architecture(given)

    assert shape.num_query_groups == config.num_key_value_heads
    assert shape.head_dim == (getattr(config, "head_dim", None) or 2)
    assert (shape.max_seq_length, shape.norm_epsilon) == (config.max_position_embeddings, config.rms_norm_eps)
    assert (shape.rope_base, shape.tie_embeddings) == (config.rope_theta, config.tie_word_embeddings)


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelSourceError, match="model.source=some/model is a 'mamba' model.*Llama.*Qwen3"):
        family_of({"model_type": "mamba"}, name="some/model")
    for kind in (None, ["llama"], "gemma3", "qwen3_moe", "deepseek_v3", "mistral3", "llava", "phi3"):
        assert all(family.title in problems_of({"model_type": kind})[0] for family in FAMILIES.values())
    with pytest.raises(ConfigError, match="model.architecture.family=qwen33.*did you mean qwen3"):
        family_named("qwen33")


LLAMA3 = {"rope_type": "llama3", **LLAMA31}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"attention_bias": True}, "bias terms"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "no causal language model"),
        ("llama", {"head_dim": None, "hidden_size": 66}, "do not divide"),
        ("llama", {"num_key_value_heads": 3}, "no multiple of num_key_value_heads=3"),
        ("llama", {"num_hidden_layers": "2"}, "num_hidden_layers='2'"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ("llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rotary embedding by kind of layer"),
        ("llama", {"rope_theta": "1e4"}, "rope_theta='1e4'"),
        ("llama", {"max_position_embeddings": "long"}, "max_position_embeddings='long'"),
        ("llama", {"num_local_experts": 8}, "experts"),
        ("llama", {"layer_types": ["full_attention", "chunked_attention"]}, "layer_types with chunked_attention"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 64}, "use_sliding_window=true.*set it to false"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 2}, "layer_types with sliding_attention"),
        ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling=.*yarn.*remove it"),
        ("qwen2", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_scaling=.*dynamic"),
        ("qwen3", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling=.*linear"),
        ("qwen3", {"rope_scaling": LLAMA3}, "rope_scaling=.*llama3"),
        ("qwen3", {"attention_bias": True}, "bias terms"),
        ("qwen3", {"num_experts": 128}, "experts"),
        ("qwen3", {"quantization_config": {"quant_method": "fp8"}}, "quantized weights"),
        ("mistral", {"sliding_window": 4096}, "sliding_window=4096, but"),
        ("mistral", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling=.*yarn"),
    ],
)
def test_what_nemo_would_hold_as_something_else_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelSourceError, match=f"^model.source=x .*{message}"):
        family_of({"model_type": name, **SIZES, **changes}, name="x")


def test_a_window_that_config_json_does_not_mention_is_one_all_the_same() -> None:
    config = {key: value for key, value in SIZES.items() if key != "sliding_window"}
    assert "where config.json does not say it" in problems_of({"model_type": "mistral", **config})[0]
    for name in ("llama", "qwen2", "qwen3"):  # transformers reads it under use_sliding_window alone, or never
        assert not problems_of({"model_type": name, **config, "sliding_window": 32})


@pytest.mark.parametrize("name", SHAPES)
def test_notations_of_transformers_5_are_read_alike(name: str, tmp_path: Path) -> None:
    config = read_hf_config(save_tiny(tmp_path, name))
    base = config.pop("rope_theta")
    newer = {**config, "rope_parameters": {"rope_type": "default", "rope_theta": base}, "dtype": "bfloat16"}
    newer["layer_types"] = ["full_attention"] * 2
    family = family_of(newer, name="x")

    assert asdict(family.architecture(newer)) == asdict(family.architecture({**config, "rope_theta": base}))


def test_everything_in_the_way_is_said_at_once() -> None:
    broken = {"model_type": "llama", "attention_bias": True, "hidden_act": "gelu", "pretraining_tp": 2}
    problems = problems_of(broken)

    assert len(problems) == 3 + 5  # and five sizes that are missing
    with pytest.raises(ModelSourceError) as caught:
        family_of(broken, name="x")
    assert str(caught.value).count("model.source=x") == len(problems)
