"""Several LoRA adapters on one model, in one batch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nemo_reasoning.errors import EngineError
from nemo_reasoning.peft.hf_adapter import read_tensors

_UNSUPPORTED = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "bias", "lora_bias")


class _Route:
    """Which tokens of the running batch use which adapter: int64 [1, tokens, 1], -1 for none."""

    tokens: torch.Tensor


class _AdaptedLinear(torch.nn.Module):
    """A linear layer to whose output each token's own adapter adds.

    The adapters' matrices stand side by side, so that two products serve all of them: what an adapter
    computes for tokens that are not its own is multiplied by zero in between.
    """

    def __init__(self, base: torch.nn.Module, parts: Sequence[tuple[int, torch.Tensor, torch.Tensor]], route: _Route):
        super().__init__()
        self.base, self._route = base, route
        weight: Any = base.weight
        self._down = torch.cat([down for _, down, _ in parts]).to(weight)  # [ranks, in]
        self._up = torch.cat([up for _, _, up in parts], dim=1).to(weight)  # [out, ranks]
        owners = [number for number, down, _ in parts for _ in range(len(down))]
        self._owners = torch.tensor(owners, device=weight.device)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map [1, tokens, in] to [1, tokens, out]."""
        narrow = torch.nn.functional.linear(hidden, self._down) * (self._route.tokens == self._owners)
        output: torch.Tensor = self.base(hidden) + torch.nn.functional.linear(narrow, self._up)
        return output


class MultiLora:
    """The adapters of a model.

    Attributes:
        numbers: Number of each adapter by name.
    """

    def __init__(self, model: Any, adapters: Mapping[str, Path]) -> None:
        """Put the adapters into a model's linear layers.

        Args:
            model: A Hugging Face model; its layers are replaced.
            adapters: PEFT directory of each adapter by name.

        Raises:
            EngineError: A directory holds no LoRA adapter of this model.
        """
        self.numbers = {name: number for number, name in enumerate(adapters)}
        self._route, self._device = _Route(), model.device
        parts: dict[str, list[tuple[int, torch.Tensor, torch.Tensor]]] = {}
        for name, folder in adapters.items():
            for layer, (down, up) in _read(folder).items():
                parts.setdefault(layer, []).append((self.numbers[name], down, up))
        for layer, found in parts.items():
            self._replace(model, layer, found)

    def _replace(self, model: Any, layer: str, parts: list[tuple[int, torch.Tensor, torch.Tensor]]) -> None:
        parent, _, name = layer.rpartition(".")
        try:
            owner = model.get_submodule(parent)
            base = getattr(owner, name)
        except AttributeError as error:
            raise EngineError(f"an adapter changes {layer}, which the model lacks; load it on its own base") from error
        for _, down, up in parts:
            if (up.shape[0], down.shape[1]) != tuple(base.weight.shape):
                raise EngineError(
                    f"an adapter changes {layer} as {up.shape[0]} x {down.shape[1]}, but the model's is "
                    f"{tuple(base.weight.shape)}; load it on its own base"
                )
        setattr(owner, name, _AdaptedLinear(base, parts, self._route))

    def route(self, numbers: Sequence[int]) -> None:
        """Say which adapter each token of the next forward pass uses; -1 for none."""
        self._route.tokens = torch.tensor(numbers, device=self._device)[None, :, None]


def _read(folder: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return A [r, in] and scaled B [out, r] of each layer that a PEFT directory adapts."""
    config = read_adapter_config(folder)
    fancy = [key for key in _UNSUPPORTED if config.get(key) and config[key] != "none"]
    if config.get("peft_type") != "LORA" or fancy:
        raise EngineError(
            f"{folder} is a {config.get('peft_type')} adapter with {', '.join(fancy) or 'nothing else'}; beside others "
            "only plain LoRA is served: export formats=[merged] and serve that"
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float):
        raise EngineError(
            f"{folder} says r={rank!r} and lora_alpha={alpha!r}, which are no rank and factor; restore it"
        )
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    file, weights = read_tensors(folder)
    layers = sorted({key.rpartition(".lora_")[0] for key in weights})
    read = {}
    for layer in layers:
        down, up = (weights.get(f"{layer}.lora_{half}.weight") for half in "AB")
        if down is None or up is None or down.dim() != 2 or up.dim() != 2 or not len(down) == rank == up.shape[1]:
            raise EngineError(f"{file} lacks the two matrices of rank {rank} for {layer or 'a layer'}; restore it")
        read[layer.removeprefix("base_model.model.")] = (down, up.float() * scale)
    return read


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of a PEFT adapter.

    Raises:
        EngineError: There is none, or it is broken.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineError(f"{folder} has no adapter_config.json; export it with formats=[hf_peft] first") from None
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{folder / 'adapter_config.json'} is not valid JSON ({error}); restore it") from error
    if not isinstance(config, dict):
        raise EngineError(f"{folder / 'adapter_config.json'} holds no settings; restore it")
    return config
