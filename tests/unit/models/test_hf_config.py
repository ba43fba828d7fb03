"""Values of a config.json that would be read as something else are refused by name."""

import re
from typing import Any

import pytest

from nemo_reasoning.models.families import problems_of

LLAMA: dict[str, Any] = {
    **{"model_type": "llama", "hidden_act": "silu", "rope_theta": 10000.0, "num_hidden_layers": 2, "hidden_size": 8},
    **{"intermediate_size": 16, "num_attention_heads": 2, "vocab_size": 32, "max_position_embeddings": 64},
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_attention_heads": "2"}, "num_attention_heads='2'.*whole number"),
        ({"num_attention_heads": 0}, "num_attention_heads=0"),
        ({"num_hidden_layers": 2.0}, r"num_hidden_layers=2\.0"),
        ({"num_hidden_layers": -1}, "num_hidden_layers=-1"),
        ({"num_hidden_layers": True}, "num_hidden_layers=True"),
        ({"vocab_size": None}, "does not say vocab_size"),
        ({"head_dim": "16"}, "head_dim='16'"),
        ({"max_position_embeddings": "4k"}, "max_position_embeddings='4k'"),
        ({"num_key_value_heads": 3}, "no multiple of num_key_value_heads=3"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps='1e-5'.*number above 0"),
        ({"rope_theta": "10000"}, "rope_theta='10000'"),
        ({"rope_theta": 0}, "rope_theta=0"),
        ({"rope_theta": 10000.5}, r"rope_theta=10000\.5.*fraction"),
        ({"rope_scaling": "linear"}, "rope_scaling='linear'.*mapping"),
        ({"rope_scaling": False}, "rope_scaling=False"),
        ({"rope_parameters": [1]}, r"rope_parameters=\[1\]"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "by kind of layer"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ({"text_config": {}}, "several models.*text_config"),
        ({"model_type": ["llama"]}, "is a .'llama'. model"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "code of its own"),
        ({"auto_map": ["x"]}, "code of its own"),
        ({"dtype": "float99"}, "dtype='float99'.*one of float32"),
        ({"torch_dtype": "auto"}, "torch_dtype='auto'"),
        ({"torch_dtype": {"text": "float16"}}, "torch_dtype={'text'"),
    ],
)
def test_a_value_that_cannot_be_held_is_named(changes: dict[str, Any], words: str) -> None:
    assert problems_of(LLAMA) == []
    (problem,) = problems_of(LLAMA | changes)
    assert re.search(words, problem), problem


@pytest.mark.parametrize(
    "changes",
    [
        {"num_key_value_heads": None, "head_dim": None, "max_position_embeddings": None},
        {"rope_scaling": {}, "rope_parameters": None},
        {"rope_theta": 500000, "partial_rotary_factor": 1.0, "auto_map": {}},
        {"dtype": None, "torch_dtype": "float16"},
        {"rope_theta": None, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}},
    ],
)
def test_what_means_nothing_is_no_problem(changes: dict[str, Any]) -> None:
    assert problems_of(LLAMA | changes) == []
