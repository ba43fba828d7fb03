"""Qwen3's dense models: heads of a size of their own, with a norm of each query and key."""

from nemo_reasoning.models.families.base import ModelFamily, NemoClasses


class Qwen3(ModelFamily):
    """Qwen3; its chat template has the switch `enable_thinking`, which training keeps (template qwen3)."""

    model_type, title = "qwen3", "Qwen3 (dense)"
    qk_norm = True
    absent = ModelFamily.absent | {"num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32768}

    def nemo_classes(self) -> NemoClasses:
        """Return NeMo's configuration, model and importer."""
        from nemo.collections.llm.gpt.model.qwen3 import HFQwen3Importer, Qwen3Config, Qwen3Model

        return NemoClasses(Qwen3Config, Qwen3Model, HFQwen3Importer)
