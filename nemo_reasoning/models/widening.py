"""Compute in float32 with a model whose layers stay in the precision they are stored in."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

Change = Callable[[torch.Tensor], torch.Tensor]


def compute_in_float32(
    model: torch.nn.Module, changes: Mapping[str, Change] = MappingProxyType({})
) -> Callable[[str], torch.Tensor]:
    """Make a model compute in float32, each of its layers widened only while it runs; for inference.

    Every value of bfloat16 and float16 is one of float32, so outputs are to the bit those of `model.float()`, and a
    model in bfloat16 takes little more than half as much memory.

    Args:
        model: Its layers are the members of its `ModuleList`s; the few weights outside of them are widened for good.
        changes: By a parameter's name, what its value, float32, becomes while it is used.

    Returns:
        A function from a parameter's name to the float32 values that are computed with.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    changed = {id(named[name]): change for name, change in changes.items() if name in named}

    def computed(tensor: torch.Tensor) -> torch.Tensor:
        change = changed.get(id(tensor))
        return tensor.data.float() if change is None else change(tensor.data.float())

    within: set[int] = set()
    for part in model.modules():
        for layer in part if isinstance(part, torch.nn.ModuleList) else ():
            held = [one for one in _tensors(layer) if id(one) not in within]
            within.update(map(id, held))
            _widen_while_it_runs(layer, [one for one in held if _is_narrow(one) or id(one) in changed], computed)
    for tensor in _tensors(model):
        if id(tensor) not in within:
            tensor.data = computed(tensor)
            changed.pop(id(tensor), None)
    return lambda name: computed(named[name])


def _tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    return [one for one in (*module.parameters(), *module.buffers()) if one.is_floating_point()]


def _is_narrow(tensor: torch.Tensor) -> bool:
    return tensor.dtype.itemsize < torch.float32.itemsize


def _widen_while_it_runs(
    layer: torch.nn.Module, tensors: list[torch.Tensor], computed: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    stored: list[torch.Tensor] = []

    def widen(*_: Any) -> None:
        stored.extend(tensor.data for tensor in tensors)
        for tensor in tensors:
            tensor.data = computed(tensor)

    def narrow(*_: Any) -> None:
        for tensor, data in zip(tensors, stored, strict=True):
            tensor.data = data
        stored.clear()

    if tensors:
        layer.register_forward_pre_hook(widen)
        layer.register_forward_hook(narrow, always_call=True)
