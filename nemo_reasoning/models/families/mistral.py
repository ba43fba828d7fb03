"""Mistral 7B from v0.2 on, and later dense models of its shape: Llama's layers and no sliding window."""

from collections.abc import Mapping
from typing import Any

from nemo_reasoning.config.model import Architecture
from nemo_reasoning.models.families.base import ModelFamily, NemoClasses


class Mistral(ModelFamily):
    """Mistral without a sliding window."""

    model_type, title = "mistral", "Mistral without sliding window"
    absent = ModelFamily.absent | {"num_key_value_heads": 8, "max_position_embeddings": 131072}

    def nemo_classes(self) -> NemoClasses:
        """Return NeMo's configuration, model and importer."""
        from nemo.collections.llm.gpt.model.mistral import HFMistralImporter, MistralConfig7B, MistralModel

        return NemoClasses(MistralConfig7B, MistralModel, HFMistralImporter)

    def own_problems(self, config: Mapping[str, Any]) -> list[str]:
        """Return a sliding window as a problem: where config.json does not say, transformers takes 4,096 tokens."""
        window = config.get("sliding_window", 4096)
        if window is None:
            return []
        said = "" if "sliding_window" in config else " (where config.json does not say it)"
        return [
            f"has sliding_window={window}{said}, but attention here sees every earlier token; choose a model without a "
            "window, such as mistralai/Mistral-7B-Instruct-v0.3"
        ]

    def nemo_fields(self, shape: Architecture) -> dict[str, Any]:
        """Return the fields that a shape decides, without the window that NeMo's configuration has of itself."""
        return super().nemo_fields(shape) | {"window_size": None, "cp_comm_type": None}
