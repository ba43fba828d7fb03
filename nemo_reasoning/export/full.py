"""All weights of a NeMo checkpoint under Hugging Face's names, where every weight was trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from nemo_reasoning.config.model import Architecture, PeftScheme, PeftSettings
from nemo_reasoning.errors import ExportError
from nemo_reasoning.export.adapter import Adapter, Change, Changes, is_adapter, read_adapter, read_tensors, unfuse
from nemo_reasoning.models.sizes import linear_shapes

_ROOMS = {
    "linear_qkv": "self_attention",
    "linear_proj": "self_attention",
    "linear_fc1": "mlp",
    "linear_fc2": "mlp",
}
_NORMS = {"linear_qkv": "input_layernorm", "linear_fc1": "post_attention_layernorm"}  # of the layer's halves


@dataclass(frozen=True)
class FullWeights:
    """Every weight of a trained model.

    Attributes:
        shape: The model.
        peft: What was trained: `peft.scheme` is none.
        weights: By Hugging Face's name; tied embeddings have no head.
    """

    shape: Architecture
    peft: PeftSettings
    weights: Mapping[str, torch.Tensor]

    def changes(self) -> Changes:
        """Return what becomes of each weight of the base model: the trained one."""
        return {name: _replaced_by(weight) for name, weight in self.weights.items()}


def _replaced_by(trained: torch.Tensor) -> Change:
    return lambda weight: trained.float()


def read_trained(checkpoint: Path, *, shape: Architecture, peft: PeftSettings) -> "Adapter | FullWeights":
    """Read what a checkpoint holds, on the CPU, without building the model; arguments are those of `read_adapter`.

    Raises:
        ExportError: It is not a checkpoint of this base model and configuration.
    """
    if peft.scheme is not PeftScheme.none:
        return read_adapter(checkpoint, shape=shape, peft=peft)
    if is_adapter(checkpoint):
        raise ExportError(f"{checkpoint} holds an adapter, not a whole model; export with the peft it was trained with")
    return FullWeights(shape, peft, _hf_weights(read_tensors(checkpoint / "weights"), shape, checkpoint))


def _hf_weights(tensors: dict[str, torch.Tensor], shape: Architecture, checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the weights under Hugging Face's names, without the rows that pad the vocabulary."""

    def take(key: str, *size: int) -> torch.Tensor:
        found = tensors.get(f"module.{key}")
        if found is None or tuple(found.shape[1:]) != size[1:] or found.shape[0] < size[0]:
            shown = None if found is None else tuple(found.shape)
            raise ExportError(f"{checkpoint}: {key} is {shown}, the base model needs {size}; is it its base?")
        return found[: size[0]]

    hidden, layers = shape.hidden_size, shape.num_layers
    weights = {
        "model.embed_tokens.weight": take("embedding.word_embeddings.weight", shape.vocab_size, hidden),
        "model.norm.weight": take("decoder.final_layernorm.weight", hidden),
    }
    if not shape.tie_embeddings:
        weights["lm_head.weight"] = take("output_layer.weight", shape.vocab_size, hidden)
    for target, (inputs, outputs) in linear_shapes(shape).items():
        stem = f"decoder.layers.{_ROOMS[target]}.{target}"
        for layer, rows in enumerate(take(f"{stem}.weight", layers, outputs, inputs)):
            for module, weight in unfuse(target, rows, shape).items():
                weights[f"model.layers.{layer}.{module}.weight"] = weight
        if target in _NORMS:
            for layer, norm in enumerate(take(f"{stem}.layer_norm_weight", layers, hidden)):
                weights[f"model.layers.{layer}.{_NORMS[target]}.weight"] = norm
    return weights
