"""Llama 2, 3, 3.1 and 3.2, and everything else that calls itself a Llama."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_reasoning.config.model import Architecture, RopeScaling
from nemo_reasoning.models.families.base import ModelFamily
from nemo_reasoning.models.hf_config import rope_of

_LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_NEEDED = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")


class Llama(ModelFamily):
    """Llama, through NeMo's own classes."""

    model_type, title = "llama", "Llama architectures"

    def problems(self, config: Mapping[str, Any]) -> list[str]:
        """Return everything that NeMo's Llama importer cannot hold, or would hold as something else."""
        problems = [
            f"does not say {name} in its config.json; download it again" for name in _NEEDED if config.get(name) is None
        ]
        if config.get("attention_bias") or config.get("mlp_bias"):
            problems.append("has bias terms, which NeMo's Llama importer would drop; choose a model without")
        if config.get("hidden_act") not in (None, "silu"):
            problems.append(f"has hidden_act={config['hidden_act']}; NeMo's Llama importer knows silu only")
        if config.get("quantization_config"):
            problems.append("has quantized weights; choose the original with 16 or 32 bits a weight")
        if config.get("auto_map"):
            problems.append(
                f"brings code of its own (auto_map: {', '.join(sorted(config['auto_map']))}), which would not run: it "
                "would be trained as a plain Llama; choose another, or remove auto_map if it is one"
            )
        if (config.get("pretraining_tp") or 1) != 1:
            problems.append(
                f"has pretraining_tp={config['pretraining_tp']}, which changes how its products are rounded; "
                "set it to 1"
            )
        return problems + _rope_problems(config)

    def architecture(self, config: Mapping[str, Any]) -> Architecture:
        """Return the shape that a config.json without problems describes."""
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        rope_base, scaling = rope_of(config)
        return Architecture(
            num_layers=config["num_hidden_layers"],
            hidden_size=hidden,
            ffn_hidden_size=config["intermediate_size"],
            num_attention_heads=heads,
            num_query_groups=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            vocab_size=config["vocab_size"],
            max_seq_length=config.get("max_position_embeddings") or 2048,
            tie_embeddings=bool(config.get("tie_word_embeddings")),
            rope_base=rope_base,
            rope_scaling=_rope_scaling(scaling) if scaling else None,
            norm_epsilon=config.get("rms_norm_eps", 1e-6),
        )

    def nemo_config(self, shape: Architecture) -> Any:
        """Return NeMo's configuration of a model of a shape."""
        from nemo.collections.llm.gpt.model.llama import Llama31Config, LlamaConfig

        shared = {
            "num_layers": shape.num_layers,
            "hidden_size": shape.hidden_size,
            "ffn_hidden_size": shape.ffn_hidden_size,
            "num_attention_heads": shape.num_attention_heads,
            "num_query_groups": shape.num_query_groups,
            "kv_channels": shape.head_dim,
            "vocab_size": shape.vocab_size,
            "layernorm_epsilon": shape.norm_epsilon,
            "rotary_base": int(shape.rope_base),
            "share_embeddings_and_output_weights": shape.tie_embeddings,
        }
        scaling = shape.rope_scaling
        if scaling is None:
            return LlamaConfig(**shared)
        return Llama31Config(
            **shared,
            scale_factor=scaling.factor,
            low_freq_factor=scaling.low_freq_factor,
            high_freq_factor=scaling.high_freq_factor,
            old_context_len=scaling.original_max_seq_length,
        )

    def nemo_model(self, config: Any, *, tokenizer: Any) -> Any:
        """Return NeMo's model of a configuration, without weights yet."""
        from nemo.collections.llm import LlamaModel

        return LlamaModel(config, tokenizer=tokenizer)

    def importer(self, path: Path) -> Any:
        """Return NeMo's importer of a Hugging Face directory."""
        from nemo.collections.llm.gpt.model.llama import HFLlamaImporter

        return HFLlamaImporter(str(path))


def _rope_problems(config: Mapping[str, Any]) -> list[str]:
    try:
        scaling = rope_of(config)[1]
    except ValueError as error:
        return [f"{error}; keep the one that its authors give"]
    if scaling is None:
        return []
    if scaling["rope_type"] != "llama3" or any(scaling.get(key) != value for key, value in _LLAMA3_ROPE.items()):
        return [f"has rope_scaling={scaling}; NeMo's Llama importer knows Llama 3.1's only, with {_LLAMA3_ROPE}"]
    if "factor" not in scaling:
        return [f"has rope_scaling={scaling} without its factor; download its config.json again"]
    return []


def _rope_scaling(scaling: Mapping[str, Any]) -> RopeScaling:
    return RopeScaling(
        factor=scaling["factor"],
        low_freq_factor=scaling["low_freq_factor"],
        high_freq_factor=scaling["high_freq_factor"],
        original_max_seq_length=scaling["original_max_position_embeddings"],
    )
