"""One set of weights of several: the average of a run's checkpoints, and adapters added with weights."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose
from pathlib import Path
from typing import Any

import torch

from nemo_reasoning.config.model import Architecture, PeftScheme, PeftSettings
from nemo_reasoning.errors import ExportError
from nemo_reasoning.export.weights import Adapter, FullWeights, read_tensors, read_trained
from nemo_reasoning.peft.hf_adapter import read_hf_adapter
from nemo_reasoning.training.checkpoints import Checkpoint, damage
from nemo_reasoning.training.run_dir import Run

_WRAPPERS = re.compile(r"\A(?:module\.)+")
_OF_LAYER = re.compile(r"(?:module\.)+(.*?layers)\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Combination:
    """What is exported in the place of one checkpoint.

    Attributes:
        averaged: Checkpoints of the run, each as good as the others; the one to export is among them.
        mixed: Further adapters of the same base with their weights, by name.
        own: Weight of the run's own adapter among them.
    """

    averaged: tuple[Checkpoint, ...]
    mixed: Mapping[str, tuple[Adapter, float]]
    own: float = 1.0

    def weights(self, *, shape: Architecture, peft: PeftSettings) -> Adapter | FullWeights:
        """Return the combined weights."""
        found = average([read_trained(one.path, shape=shape, peft=peft) for one in self.averaged])
        if not self.mixed and self.own == 1:
            return found
        assert isinstance(found, Adapter)  # `combination` refuses the rest
        return mix([(found, self.own), *self.mixed.values()])

    @torch.no_grad()
    def prepare(self, model: Any) -> None:
        """Make NeMo's model of the checkpoint the combined one, in place: by parameters and dense products."""
        stored = [read_tensors(one.path / "weights") for one in self.averaged]
        for name, parameter in model.named_parameters():
            key, layer = _stored_key(name)
            if all(key in tensors for tensors in stored):
                whole = torch.stack([tensors[key].double() for tensors in stored]).mean(dim=0)
                parameter.copy_(whole if layer is None else whole[layer])
        for name, module in model.named_modules():
            target, layer = name.rpartition(".")[2], _stored_key(name)[1]
            if not hasattr(module, "to_wrap") or layer is None:
                continue
            module.adapter.linear_out.weight.mul_(self.own)
            for adapter, weight in self.mixed.values():
                down, up = adapter.weights[target]
                module.to_wrap.weight.add_(weight * adapter.peft.scale * (up[layer].float() @ down[layer].float()))

    def recorded(self) -> dict[str, Any]:
        """Return what the manifest says."""
        weights = {name: weight for name, (_, weight) in self.mixed.items()}
        return {"averaged_steps": [one.step for one in self.averaged], "adapters": weights, "own_weight": self.own}


def _stored_key(name: str) -> tuple[str, int | None]:
    """Return the key of a parameter in a checkpoint, where layers are stacked, and its layer."""
    if found := _OF_LAYER.fullmatch(name):
        return f"module.{found[1]}.{found[3]}", int(found[2])
    return f"module.{_WRAPPERS.sub('', name)}", None


def combination(
    run: Run, *, last: int, adapters: Mapping[str, float], folder_of: Callable[[str], Path], shape: Architecture
) -> Combination | None:
    """Return what settings ask to combine; None for the one checkpoint as it is.

    Args:
        run: Whose checkpoints.
        last: How many of the latest to average; 1 takes the one that the run selects.
        adapters: Runs or PEFT directories with their weights; the run itself may be among them, and else has 1.
        folder_of: Returns the PEFT directory of one of them, which may have to be exported first.
        shape: Of the base.

    Raises:
        ExportError: There are fewer checkpoints, or adapters that cannot be added; says which.
    """
    if last == 1 and not adapters:
        return None
    averaged, own = _averaged(run, last), _own_weight(run, adapters)
    places, mixed = {(run.export_dir / "hf_peft").resolve(): str(run.path)}, {}
    for name, weight in adapters.items():
        if _is(name, run):
            continue
        folder = folder_of(name)
        if earlier := places.get(folder.resolve()):
            raise ExportError(f"adapters: {name} and {earlier} are one adapter; name it once, with one weight")
        places[folder.resolve()] = name
        mixed[name] = (_added(name, folder, run=run, shape=shape), weight)
    return Combination(averaged, mixed, own)


def _averaged(run: Run, last: int) -> tuple[Checkpoint, ...]:
    if last == 1:
        return (run.selected()[0],)
    intact = [one for one in run.checkpoints if damage(one) is None]
    if len(intact) < last:
        raise ExportError(
            f"average={last}: {run.path} holds {len(intact)} intact checkpoints; train with "
            f"trainer.keep_checkpoints={last} or average fewer"
        )
    return tuple(intact[-last:])


def _own_weight(run: Run, adapters: Mapping[str, float]) -> float:
    """Return the weight of the run's own adapter among others."""
    scheme, ours = run.settings.peft.scheme, [name for name in adapters if _is(name, run)]
    if adapters and scheme is not PeftScheme.lora:
        raise ExportError(f"adapters: {run.path} was trained with peft={scheme.value}; only LoRA adapters add up")
    if len(ours) > 1:
        raise ExportError(f"adapters: {' and '.join(ours)} are one adapter; name it once, with one weight")
    own = adapters[ours[0]] if ours else 1.0
    if isclose(own + sum(weight for name, weight in adapters.items() if name not in ours), 0, abs_tol=1e-9):
        unnamed = "" if ours else f", with the 1 of {run.path}, which they do not name,"
        raise ExportError(f"adapters: the weights{unnamed} add up to 0, which leaves no model; make it 1, or near it")
    return own


def _is(name: str, run: Run) -> bool:
    return Path(name).expanduser().resolve() == run.path.resolve()


def _added(name: str, folder: Path, *, run: Run, shape: Architecture) -> Adapter:
    """Return an adapter to add to a run's own."""
    peft, other = run.settings.peft, read_hf_adapter(folder, shape=shape)
    config = other.config
    if set(config.target_modules) != set(peft.target_modules):
        raise ExportError(
            f"adapters: {name} adapts {', '.join(config.target_modules)}, and {run.path} "
            f"{', '.join(peft.target_modules)}; adapters of the same linears add up"
        )
    settings = replace(peft, dim=config.dim, alpha=config.alpha, rslora=config.rslora)
    return Adapter(shape, settings, other.fused())


def average(found: Sequence[Adapter | FullWeights]) -> Adapter | FullWeights:
    """Return the mean of each trained parameter over checkpoints of one run."""
    first = found[0]
    if isinstance(first, FullWeights):
        whole = [one.weights for one in found if isinstance(one, FullWeights)]
        return replace(first, weights={name: _mean([one[name] for one in whole]) for name in first.weights})
    parts = [one for one in found if isinstance(one, Adapter)]
    weights = {
        name: (_mean([one.weights[name][0] for one in parts]), _mean([one.weights[name][1] for one in parts]))
        for name in first.weights
    }
    magnitudes = {name: _mean([one.magnitudes[name] for one in parts]) for name in first.magnitudes}
    return replace(first, weights=weights, magnitudes=magnitudes)


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    mean = torch.stack([tensor.double() for tensor in tensors]).mean(dim=0)
    return mean.to(tensors[0].dtype if len(tensors) == 1 else torch.float32)


def mix(adapters: Sequence[tuple[Adapter, float]]) -> Adapter:
    """Return the weighted sum of adapters of the same linears: exact, of the rank that theirs add up to."""
    first = adapters[0][0]
    weights = {}
    for name in first.weights:
        downs = torch.cat([adapter.weights[name][0].float() for adapter, _ in adapters], dim=1)
        ups = torch.cat([factor * one.peft.scale * one.weights[name][1].float() for one, factor in adapters], dim=2)
        weights[name] = (downs, ups)
    dim = sum(adapter.peft.dim for adapter, _ in adapters)
    return replace(first, peft=replace(first.peft, dim=dim, alpha=dim, rslora=False), weights=weights)
