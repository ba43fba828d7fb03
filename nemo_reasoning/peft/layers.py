"""The linears of the torch layers with their weight in NF4.

They keep Megatron's interface, so LoRA wraps them as it wraps their originals. The buffer `weight` is
packed, uint8, and in no state dict: a checkpoint holds the adapter alone.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from megatron.core.transformer.spec_utils import ModuleSpec

from nemo_reasoning.backend.torch_layers import LayerNormColumnParallelLinear, torch_layer_spec
from nemo_reasoning.models.sizes import nf4_groups
from nemo_reasoning.peft import nf4


class Nf4Matmul(torch.autograd.Function):
    """x @ W.T with W in NF4, which both passes dequantize and neither keeps."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Callable[[torch.dtype], torch.Tensor]) -> torch.Tensor:
        """Return [..., outputs] in the dtype of x [..., inputs]; `weight` dequantizes."""
        ctx.weight = weight
        return F.linear(x, weight(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of x; the weight is frozen."""
        (gradient,) = gradients
        return gradient @ ctx.weight(gradient.dtype), None


_buffers: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}


def _buffer(device: torch.device, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a tensor of this shape, of the memory that all of its device and dtype share."""
    size = math.prod(shape)
    if (device, dtype) not in _buffers or _buffers[device, dtype].numel() < size:
        _buffers[device, dtype] = torch.empty(size, dtype=dtype, device=device)
    return _buffers[device, dtype][:size].view(shape)


class PendingWeight(torch.nn.Parameter):
    """This rank's share of a weight, on the meta device: it takes no memory and waits for the weight.

    Attributes:
        fill: Takes the whole weight [outputs, inputs] of all ranks, on any device.
    """

    fill: Callable[[torch.Tensor], None]

    def __new__(cls, data: torch.Tensor, fill: Callable[[torch.Tensor], None]) -> "PendingWeight":
        """Return a frozen parameter with `fill`."""
        weight: PendingWeight = super().__new__(cls, data, requires_grad=False)
        weight.fill = fill
        return weight


def _materialize(module: Any, name: str) -> None:
    """Replace a parameter on the meta device, if there is one, by zeros where Megatron makes its weights."""
    made = getattr(module, name)
    if made is None:
        return
    device = "cpu" if module.config.use_cpu_initialization else torch.cuda.current_device()
    zeros = torch.nn.Parameter(torch.zeros_like(made, device=device), requires_grad=made.requires_grad)
    vars(zeros).update(vars(made))  # how it is sharded
    setattr(module, name, zeros)


class _Nf4Linear(torch.nn.Module):
    """What the linears share; stands before one of Megatron's among the bases.

    Attributes:
        weight: A `PendingWeight`, later uint8 [outputs * inputs / 2, 1], of this rank's share.
        quant_state: bitsandbytes' `QuantState`; None while the weight is pending.
        digest: `nf4.digest` of the whole weight, which no layout of ranks changes.
    """

    weight: torch.Tensor
    digest: str
    tp_group: Any

    def __init__(self, *args: Any, config: Any, target: str, **kwargs: Any) -> None:
        made = copy.copy(config)
        made.use_cpu_initialization, made.perform_initialization = True, False
        with torch.device("meta"):
            super().__init__(*args, config=made, **kwargs)
        self.config, self.target = config, target
        self.quant_state: Any = None
        self.weight = PendingWeight(self.weight, self.quantize)
        _materialize(self, "bias")

    def quantize(self, weight: torch.Tensor) -> None:
        """Quantize a whole weight [outputs, inputs] where Megatron makes its weights, and hold this rank's share.

        Scales are shared across the edges of the shares, so no rank could make its own from its share alone.
        """
        device = "cpu" if self.config.use_cpu_initialization else torch.cuda.current_device()
        packed, state = nf4.quantize(weight.to(device, dtype=self.config.params_dtype))
        self.digest, ranks = nf4.digest(packed, state), weight.numel() // self.weight.numel()
        if ranks > 1:
            groups = nf4_groups(self.target, len(weight))
            packed, state = nf4.share_of(packed, state, ranks=ranks, rank=self.tp_group.rank(), groups=groups)
        del self.weight
        self.quant_state = state
        self.register_buffer("weight", packed, persistent=False)

    def dense_weight(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight [outputs, inputs], dequantized; on a GPU it is gone when the next one is asked for.

        There all linears of a dtype share one buffer, as large as the largest of them. Kernels of a stream run in
        order, so a product has read it before another weight is written into it.
        """
        stored: torch.dtype = self.quant_state.dtype
        on_cpu = self.weight.device.type == "cpu"
        out = None if on_cpu else _buffer(self.weight.device, stored, tuple(self.quant_state.shape))
        return nf4.dequantize(self.weight, self.quant_state, out=out).to(dtype)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "_Nf4Linear":
        """Move what there is; a pending weight stays, and no scale is ever cast."""
        pending = self._parameters.pop("weight", None)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if pending is not None:
            self._parameters["weight"] = pending
        else:
            self.quant_state.to(self.weight.device)
        return self

    def _forward_impl(self, input: torch.Tensor, weight: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Multiply, in the place where Megatron's linears choose between their kernels."""
        if kwargs["allreduce_dgrad"]:
            input = copy_to_tensor_model_parallel_region(input, group=kwargs["tp_group"])
        elif kwargs["sequence_parallel"]:
            input = gather_from_sequence_parallel_region(input, group=kwargs["tp_group"])
        output: torch.Tensor = Nf4Matmul.apply(input, self.dense_weight)  # type: ignore[no-untyped-call]
        return output if kwargs["bias"] is None else output + kwargs["bias"]


class Nf4ColumnParallelLinear(_Nf4Linear, ColumnParallelLinear):  # type: ignore[misc]
    """`ColumnParallelLinear` in NF4."""


class Nf4RowParallelLinear(_Nf4Linear, RowParallelLinear):  # type: ignore[misc]
    """`RowParallelLinear` in NF4."""


class Nf4LayerNormColumnParallelLinear(LayerNormColumnParallelLinear, Nf4ColumnParallelLinear):
    """`LayerNormColumnParallelLinear` with its matrix in NF4; the norm keeps its dtype."""


_NF4 = {
    ColumnParallelLinear: Nf4ColumnParallelLinear,
    RowParallelLinear: Nf4RowParallelLinear,
    LayerNormColumnParallelLinear: Nf4LayerNormColumnParallelLinear,
}


def nf4_layer_spec(config: Any, *, targets: Sequence[str], te_attention: bool = False) -> ModuleSpec:
    """Return the torch layers' specification with some linears in NF4, which wait for their weights.

    Args:
        config: Megatron's configuration of the model.
        targets: Megatron's names of the linears to quantize.
        te_attention: As for `torch_layer_spec`.
    """
    spec = torch_layer_spec(config, te_attention=te_attention)
    for part in (spec.submodules.self_attention, spec.submodules.mlp):
        for target in set(targets) & vars(part.submodules).keys():
            made = _NF4[getattr(part.submodules, target)]
            setattr(part.submodules, target, ModuleSpec(module=made, params={"target": target}))
    return spec
