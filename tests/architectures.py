"""The models of conf/model, and what Hugging Face makes of their shapes."""

from typing import Any

import torch
from composing import sft_settings
from transformers import AutoConfig, AutoModelForCausalLM

from nemo_reasoning.config import group_names, read_group
from nemo_reasoning.config.model import Architecture

LISTED = [name for name in group_names("model") if read_group("model", name).architecture is not None]
SMALL = Architecture(
    family="llama",
    num_layers=3,
    hidden_size=64,
    ffn_hidden_size=96,
    num_attention_heads=4,
    num_query_groups=2,
    head_dim=16,
    qkv_bias=False,
    qk_norm=False,
    vocab_size=128,
    max_seq_length=512,
    tie_embeddings=False,
    rope_base=10000.0,
    rope_scaling=None,
    norm_epsilon=1e-5,
)


def listed(name: str) -> Architecture:
    """Return the shape that conf/model/<name>.yaml states."""
    shape = sft_settings(f"model={name}", "hardware=cpu").model.architecture
    assert shape is not None
    return shape


def hf_config(shape: Architecture) -> Any:
    """Return Hugging Face's configuration of a shape."""
    scaling = shape.rope_scaling
    windows = {"mistral": {"sliding_window": None}}
    return AutoConfig.for_model(
        shape.family,
        num_hidden_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.ffn_hidden_size,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_query_groups,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab_size,
        max_position_embeddings=shape.max_seq_length,
        tie_word_embeddings=shape.tie_embeddings,
        rope_theta=shape.rope_base,
        rope_scaling=scaling
        and {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_seq_length,
        },
        rms_norm_eps=shape.norm_epsilon,
        attn_implementation="eager",
        **windows.get(shape.family, {}),
    )


def weightless(shape: Architecture) -> Any:
    """Return Hugging Face's model of a shape, its weights on the meta device."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(hf_config(shape))
