"""Llama 2, 3, 3.1 and 3.2, and everything else that calls itself a Llama, such as Nemotron Nano 8B v1."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_reasoning.config.model import Architecture, RopeScaling
from nemo_reasoning.models.families.base import ModelFamily, NemoClasses
from nemo_reasoning.models.hf_config import read_hf_config

_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


class Llama(ModelFamily):
    """Llama, with the frequency scaling of Llama 3.1."""

    model_type, title = "llama", "Llama architectures"

    def nemo_classes(self) -> NemoClasses:
        """Return NeMo's configuration, model and importer."""
        from nemo.collections.llm.gpt.model.llama import HFLlamaImporter, LlamaConfig, LlamaModel

        return NemoClasses(LlamaConfig, LlamaModel, HFLlamaImporter)

    def own_problems(self, config: Mapping[str, Any]) -> list[str]:
        """Return what NeMo's Llama would round otherwise."""
        if (slices := config.get("pretraining_tp") or 1) == 1:
            return []
        return [f"has pretraining_tp={slices}, which changes how its products are rounded; set it to 1"]

    def scaling_problems(self, scaling: Mapping[str, Any]) -> list[str]:
        """Return why a scaling is not Llama 3.1's."""
        if scaling["rope_type"] != "llama3" or any(scaling.get(key) != value for key, value in _ROPE.items()):
            return [f"has rope_scaling={dict(scaling)}; NeMo's Llama importer knows Llama 3.1's only, with {_ROPE}"]
        if not isinstance(scaling.get("factor"), int | float):
            return [f"has rope_scaling={dict(scaling)} without its factor; download its config.json again"]
        return []

    def rope_scaling(self, scaling: Mapping[str, Any]) -> RopeScaling:
        """Return Llama 3.1's scaling."""
        return RopeScaling(
            factor=scaling["factor"],
            low_freq_factor=scaling["low_freq_factor"],
            high_freq_factor=scaling["high_freq_factor"],
            original_max_seq_length=scaling["original_max_position_embeddings"],
        )

    def imported_config(self, importer: Any, shape: Architecture) -> Any:
        """Return what NeMo's importer reads, all there is to a Llama; it refuses a base that names no dtype."""
        named = read_hf_config(Path(importer))
        return importer.config if named.get("dtype") or named.get("torch_dtype") else self.nemo_config(shape)

    def nemo_config(self, shape: Architecture) -> Any:
        """Return NeMo's configuration, of another class where the rotary embedding is scaled."""
        from nemo.collections.llm.gpt.model.llama import Llama31Config

        scaling = shape.rope_scaling
        if scaling is None:
            return super().nemo_config(shape)
        return Llama31Config(
            **self.nemo_fields(shape),
            scale_factor=scaling.factor,
            low_freq_factor=scaling.low_freq_factor,
            high_freq_factor=scaling.high_freq_factor,
            old_context_len=scaling.original_max_seq_length,
        )
