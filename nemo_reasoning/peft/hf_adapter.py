"""The weights of an adapter in Hugging Face PEFT's format, ours or anyone's, that a training starts from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from nemo_reasoning.config.adapter import AdapterConfig, adapter_config
from nemo_reasoning.config.model import Architecture
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.models.families import family_named
from nemo_reasoning.models.sizes import linear_shapes

_SAFETENSORS, _PICKLE = "adapter_model.safetensors", "adapter_model.bin"
_KEY = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(\w+\.\w+)\.lora_(A|B)(?:\.default)?\.weight")
Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class HfAdapter:
    """A LoRA adapter under Hugging Face's names.

    Attributes:
        config: Its configuration.
        file: Its weights.
        shape: Of the base model, which it fits.
        weights: (A [r, in], B [out, r]), float32, by layer and module, such as (0, "mlp.up_proj").
    """

    config: AdapterConfig
    file: Path
    shape: Architecture
    weights: Mapping[tuple[int, str], Pair]

    def fused(self) -> dict[str, Pair]:
        """Return (linear_in [L, r, in], linear_out [L, out, r]) of each adapted linear of Megatron's.

        Raises:
            ConfigError: The modules behind one of them do not share their A, as those of one matrix do.
        """
        modules = family_named(self.shape.family).hf_modules
        fused = {}
        for target in self.config.target_modules:
            pairs = [self._fused(target, modules[target], layer) for layer in range(self.shape.num_layers)]
            fused[target] = (torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs]))
        return fused

    def _fused(self, target: str, modules: tuple[str, ...], layer: int) -> Pair:
        missing = [module for module in modules if (layer, module) not in self.weights]
        if missing:
            raise ConfigError(
                f"{self.file.parent} does not adapt {missing[0]} of layer {layer}, which is part of {target}; such an "
                "adapter can only be started from, with peft.start=merged"
            )
        parts = [self.weights[layer, module] for module in modules]
        if not all(torch.equal(a, parts[0][0]) for a, _ in parts):
            raise ConfigError(
                f"{self.file.parent} has a matrix A of its own for each of {', '.join(modules)}; training has one for "
                "all of them, so it can only be started from, with peft.start=merged"
            )
        return parts[0][0], fuse(target, [b for _, b in parts], self.shape)

    def change(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Return a weight of the base, by Hugging Face's name, with the adapter's part in it, in its dtype."""
        match = re.fullmatch(r"model\.layers\.(\d+)\.(\w+\.\w+)\.weight", name)
        pair = self.weights.get((int(match[1]), match[2])) if match else None
        if pair is None:
            return weight
        return torch.addmm(weight.float(), pair[1], pair[0], alpha=self.config.scale).to(weight.dtype)


def fuse(target: str, parts: list[torch.Tensor], shape: Architecture) -> torch.Tensor:
    """Put the rows [rows, columns] of Hugging Face's modules into the Megatron linear that stands for them."""
    if target == "linear_qkv":  # rows per group: its query heads, key, value
        groups = [part.view(shape.num_query_groups, -1, part.shape[1]) for part in parts]
        return torch.cat(groups, dim=1).flatten(0, 1)
    return torch.cat(parts)


def read_hf_adapter(folder: Path, *, shape: Architecture) -> HfAdapter:
    """Read a PEFT directory.

    Raises:
        ConfigError: It is not plain LoRA, is incomplete, or is one of another base.
    """
    config = adapter_config(str(folder))
    file, tensors = read_tensors(folder)
    halves: dict[tuple[int, str], dict[str, torch.Tensor]] = {}
    known = _module_shapes(shape)
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None or match[2] not in known:
            raise ConfigError(f"{file} holds {key}; only LoRA on {', '.join(known)} is understood")
        halves.setdefault((int(match[1]), match[2]), {})[match[3]] = tensor.float()
    weights = {}
    for (layer, module), parts in halves.items():
        inputs, outputs = known[module]
        found = {name: tuple(part.shape) for name, part in sorted(parts.items())}
        wanted = {"A": (config.dim, inputs), "B": (outputs, config.dim)}
        if found != wanted or layer >= shape.num_layers:
            raise ConfigError(
                f"{file}: {module} of layer {layer} is {found}, but this base of {shape.num_layers} layers needs "
                f"{wanted}; choose the model that it was trained on"
            )
        weights[layer, module] = (parts["A"], parts["B"])
    if not weights:
        raise ConfigError(f"{file} holds no weights")
    return HfAdapter(config, file, shape, weights)


def weights_file(folder: Path) -> Path:
    """Return the file of a PEFT directory with its weights.

    Raises:
        ConfigError: There is none.
    """
    file = next((folder / name for name in (_SAFETENSORS, _PICKLE) if (folder / name).is_file()), None)
    if file is None:
        raise ConfigError(f"{folder} has neither {_SAFETENSORS} nor {_PICKLE}, the weights of an adapter; restore them")
    return file


def read_tensors(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Return the file with the weights of a PEFT directory, and what it holds; a pickle is read as tensors or not.

    Raises:
        ConfigError: It is missing or damaged, or holds more than tensors of finite numbers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = weights_file(folder)
    try:
        loaded = (
            load_file(file) if file.name == _SAFETENSORS else torch.load(file, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise ConfigError(f"{file} is damaged ({str(error).splitlines()[0]}); restore it") from error
    except Exception as error:  # pickle's own errors have no common base
        raise ConfigError(f"{file} holds more than tensors, and is not loaded: save it as {_SAFETENSORS}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ConfigError(f"{file} holds more than tensors by name; save it as {_SAFETENSORS}")
    if spoilt := [name for name, tensor in loaded.items() if not torch.isfinite(tensor).all()]:
        raise ConfigError(f"{file}: {spoilt[0]} holds numbers that are not finite; it was spoilt in its training")
    return file, loaded


def _module_shapes(shape: Architecture) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of each linear of a Hugging Face layer, by its name in the layer."""
    heads, keys = shape.num_attention_heads * shape.head_dim, shape.num_query_groups * shape.head_dim
    rows = {"linear_qkv": (heads, keys, keys), "linear_fc1": (shape.ffn_hidden_size,) * 2}
    found = {}
    for target, modules in family_named(shape.family).hf_modules.items():
        inputs, outputs = linear_shapes(shape)[target]
        for module, size in zip(modules, rows.get(target, (outputs,)), strict=True):
            found[module] = (inputs, size)
    return found
