"""Qwen2 and Qwen2.5: Llama's layers with a bias on queries, keys and values."""

from nemo_reasoning.models.families.base import ModelFamily, NemoClasses


class Qwen2(ModelFamily):
    """Qwen2 and Qwen2.5."""

    model_type, title = "qwen2", "Qwen2 and Qwen2.5"
    qkv_bias = True
    absent = ModelFamily.absent | {"num_key_value_heads": 32, "max_position_embeddings": 32768}

    def nemo_classes(self) -> NemoClasses:
        """Return NeMo's configuration, model and importer."""
        from nemo.collections.llm.gpt.model.qwen2 import HFQwen2Importer, Qwen2Config, Qwen2Model

        return NemoClasses(Qwen2Config, Qwen2Model, HFQwen2Importer)
