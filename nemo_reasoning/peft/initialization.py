"""First weights that follow from the name of a parameter and a seed alone, however ranks share the model.

Megatron and NeMo draw from generators whose state depends on what a rank drew before: a pipeline stage, or on a GPU a
tensor-parallel rank, would begin with another adapter than one process. Here the whole weight is drawn from a generator
of its own, and each rank takes its share.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

from nemo_reasoning.config.model import Architecture
from nemo_reasoning.models.sizes import linear_shapes
from nemo_reasoning.peft.layers import PendingWeight

Start = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
_GATED = "linear_fc1"  # gate and up, one behind the other; each rank has its rows of both
_LAST = ("linear_proj", "linear_fc2")  # of attention and MLP: what Megatron scales by the depth of the model


def initialized(transform: Any, *, seed: int, start: Start | None) -> Any:
    """Return NeMo's transform of a module, which adds an adapter to a linear, with the adapter's first weights.

    Args:
        transform: NeMo's.
        seed: Of a fresh adapter, Xavier's normal distribution in `linear_in` and zeros in `linear_out`.
        start: (linear_in [L, r, in], linear_out [L, out, r]) of each adapted linear to begin with instead.
    """

    def with_weights(m: Any, name: str | None = None, prefix: str | None = None) -> Any:
        made = transform(m, name=name, prefix=prefix)
        if made is m:
            return m
        assert name is not None
        layer, within = _place(f"{prefix}.{name}", m)
        down, up = made.adapter.linear_in, made.adapter.linear_out
        if start is not None and name in start:
            _fill(down.weight, start[name][0][layer])
            _fill(up.weight, start[name][1][layer], parts=1 + (name == _GATED))
        else:
            named = f"decoder.layers.{layer}.{within}.adapter.linear_in.weight"
            whole = torch.empty(down.output_size, down.input_size)
            _fill(down.weight, torch.nn.init.xavier_normal_(whole, generator=generator(named, seed=seed)))
        return made

    return with_weights


def initialize(model: Any, shape: Architecture, *, seed: int) -> None:
    """Give a Megatron model, or this rank's part of it, random weights; norms and biases stay ones and zeros.

    Args:
        model: Under any wrappers.
        shape: Of the whole model.
        seed: Of all weights together.
    """
    sizes = {f"{name}.weight": (outputs, inputs) for name, (inputs, outputs) in linear_shapes(shape).items()}
    for name, weight in list(model.named_parameters()):  # a pending one is replaced
        if weight.dim() < 2:
            continue
        layer, within = _place(name, model)
        named = name if layer is None else f"decoder.layers.{layer}.{within}"
        if model.share_embeddings_and_output_weights and layer is None:
            named = "embedding.word_embeddings.weight"  # of which the last pipeline stage has a copy
        linear = within.rpartition(".weight")[0].rpartition(".")[2]
        whole_size = sizes.get(f"{linear}.weight", (shape.vocab_size, shape.hidden_size))
        draw = model.config.output_layer_init_method if linear in _LAST else model.config.init_method
        device = torch.device("cpu") if weight.is_meta else weight.device
        whole = torch.empty(whole_size, device=device)
        draw(whole, generator=generator(named, seed=seed, device=device))
        _fill(weight, whole, parts=1 + (linear == _GATED))


def generator(name: str, *, seed: int, device: torch.device | None = None) -> torch.Generator:
    """Return the generator of a parameter, by its full name in the whole model."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator(device or torch.device("cpu")).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _place(name: str, module: Any) -> tuple[int | None, str]:
    """Return the layer, counted in the whole model, and the name in it; None and the whole name outside of layers."""
    match = re.search(r"layers\.(\d+)\.(.+)", name)
    if match is None:
        return None, name
    return int(match[1]) + get_transformer_layer_offset(module.config), match[2]


def _fill(weight: torch.Tensor, whole: torch.Tensor, *, parts: int = 1) -> None:
    """Set a weight to this tensor-parallel rank's share of a whole one, along the axis in which they differ.

    Args:
        weight: What the rank holds; one that is pending takes its share itself.
        whole: Of all ranks.
        parts: So many matrices lie in it one behind the other, of each of which a rank has a share.
    """
    if isinstance(weight, PendingWeight):
        return weight.fill(whole)
    split = [axis for axis in range(whole.dim()) if whole.shape[axis] != weight.shape[axis]]
    if split:
        rank, size = (getattr(parallel_state, f"get_tensor_model_parallel_{what}")() for what in ("rank", "world_size"))
        (axis,) = split
        whole = torch.cat([part.chunk(size, axis)[rank] for part in whole.chunk(parts, axis)], axis)
    with torch.no_grad():
        weight.copy_(whole)
