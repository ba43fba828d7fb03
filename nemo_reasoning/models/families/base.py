"""What a family of models must tell: how its config.json reads, and which classes of NeMo hold it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from nemo_reasoning.config.model import Architecture


class ModelFamily(ABC):
    """A family; NeMo and torch are loaded only by the methods that return their objects.

    Attributes:
        model_type: How config.json calls it.
        title: Its name for people.
        hf_modules: Modules of a Hugging Face layer behind each of Megatron's linears, in the order of their rows.
        hf_norms: The norm of a Hugging Face layer that Megatron fuses into a linear.
    """

    model_type: ClassVar[str]
    title: ClassVar[str]
    hf_modules: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "linear_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "linear_proj": ("self_attn.o_proj",),
        "linear_fc1": ("mlp.gate_proj", "mlp.up_proj"),
        "linear_fc2": ("mlp.down_proj",),
    }
    hf_norms: ClassVar[Mapping[str, str]] = {"linear_qkv": "input_layernorm", "linear_fc1": "post_attention_layernorm"}

    @abstractmethod
    def problems(self, config: Mapping[str, Any]) -> list[str]:
        """Return everything in a config.json that NeMo cannot hold, or would hold as something else."""

    @abstractmethod
    def architecture(self, config: Mapping[str, Any]) -> Architecture:
        """Return the shape that a config.json without problems describes."""

    @abstractmethod
    def nemo_config(self, shape: Architecture) -> Any:
        """Return NeMo's configuration of a model of a shape."""

    @abstractmethod
    def nemo_model(self, config: Any, *, tokenizer: Any) -> Any:
        """Return NeMo's model of a configuration, without weights yet."""

    @abstractmethod
    def importer(self, path: Path) -> Any:
        """Return NeMo's importer of a Hugging Face directory."""
