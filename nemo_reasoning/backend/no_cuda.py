"""What NeMo and Megatron take for granted about CUDA, answered where there is none or it is not to be used.

Nothing here is imported by training code: `backend.runtime` applies it.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from nemo_reasoning.backend.patching import Patch

CPU = torch.device("cpu")


def _is_cuda(device: Any) -> bool:
    return (isinstance(device, str) and device.startswith("cuda")) or (
        isinstance(device, torch.device) and device.type == "cuda"
    )


class CudaOnCpu(TorchFunctionMode):
    """Send every tensor that asks for a CUDA device to the CPU, and drop page-locked memory.

    Answers literal `device="cuda"`, `.to("cuda")` and `pin_memory=True` in
    `nemo.lightning.pytorch.strategies.megatron_strategy` and throughout `megatron.core`.
    Tensor type names are reported as CUDA's, because `megatron.core.optimizer` sorts parameters
    by names such as `torch.cuda.BFloat16Tensor`.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func` with CUDA devices replaced by the CPU."""
        kwargs = kwargs or {}
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = CPU
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        if func is torch.Tensor.to:
            args = tuple(CPU if _is_cuda(argument) else argument for argument in args)
        result = func(*args, **kwargs)
        if func is torch.Tensor.type and isinstance(result, str):
            return result.replace("torch.", "torch.cuda.", 1)
        return result


class _Stream:
    """A CUDA stream on a machine where everything runs in order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def wait_stream(self, stream: Any) -> None:
        """Return at once: there is nothing to wait for."""

    def synchronize(self) -> None:
        """Return at once: there is nothing to wait for."""


def _streams() -> Sequence[tuple[Any, str, Any]]:
    return [
        (torch.cuda, "Stream", _Stream),
        (torch.cuda, "stream", lambda stream: nullcontext()),
        (torch.cuda, "current_stream", lambda device=None: _Stream()),
        (torch.cuda, "current_device", lambda: CPU),
        (torch.cuda, "synchronize", lambda device=None: None),
    ]


def _presence() -> Sequence[tuple[Any, str, Any]]:
    if not torch.cuda.is_available():
        return []
    return [
        (torch.cuda, "is_available", lambda: False),
        (torch.cuda, "device_count", lambda: 0),
        (torch.cuda.random, "device_count", lambda: 0),  # it reads and sets the generator of each device
    ]


def _moves() -> Sequence[tuple[Any, str, Any]]:
    def stay(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self

    return [(torch.Tensor, "cuda", stay), (torch.nn.Module, "cuda", stay)]


def _constructors() -> Sequence[tuple[Any, str, Any]]:
    return [
        (torch.cuda, "FloatTensor", torch.FloatTensor),
        (torch.cuda, "LongTensor", torch.LongTensor),
    ]


def _random_state() -> Sequence[tuple[Any, str, Any]]:
    from megatron.core import tensor_parallel
    from megatron.core.tensor_parallel import random
    from nemo.lightning import megatron_init

    seed_processes = megatron_init._set_random_seed

    def seed_all(seed: int) -> None:
        seed_processes(seed)
        tensor_parallel.model_parallel_cuda_manual_seed(seed)

    return [
        (torch.cuda, "get_rng_state", lambda *args, **kwargs: torch.get_rng_state()),
        (torch.cuda, "manual_seed", torch.manual_seed),
        (random, "_get_cuda_rng_state", lambda *args, **kwargs: torch.get_rng_state()),
        (random, "_set_cuda_rng_state", lambda state, *args, **kwargs: torch.set_rng_state(state)),
        (megatron_init, "_set_random_seed", seed_all),
    ]


def _checkpoint_tensors() -> Sequence[tuple[Any, str, Any]]:
    from nemo.lightning.io import pl

    return [(pl, "_fix_tensors_device", lambda checkpoint: checkpoint)]


def _plain_kernels() -> Sequence[tuple[Any, str, Any]]:
    from nemo.collections.llm.gpt.model.base import GPTConfig

    finish = GPTConfig.__post_init__

    def without_cuda_kernels(self: Any) -> None:
        self.bias_dropout_fusion = False
        self.cross_entropy_loss_fusion = False
        self.use_cpu_initialization = True
        finish(self)

    return [(GPTConfig, "__post_init__", without_cuda_kernels)]


def _torch_optimizer() -> Sequence[tuple[Any, str, Any]]:
    from megatron.core import optimizer, utils
    from megatron.core.optimizer import clip_grads
    from megatron.core.optimizer import optimizer as wrappers

    apply, scale = utils.local_multi_tensor_applier, utils.local_multi_tensor_scale
    return [
        (optimizer, "Adam", torch.optim.AdamW),
        (optimizer, "USING_PYTORCH_OPTIMIZER", True),
        (clip_grads, "l2_norm_impl", utils.local_multi_tensor_l2_norm),
        *((module, "multi_tensor_applier", apply) for module in (clip_grads, wrappers)),
        *((module, "multi_tensor_scale_impl", scale) for module in (clip_grads, wrappers)),
    ]


TORCH_OPTIMIZER = Patch(
    "torch-optimizer",
    "megatron.core.optimizer takes Adam, norms and scaling from TE or apex where they are installed, for CUDA only",
    _torch_optimizer,
)
NO_CUDA = (
    Patch("presence", "a GPU that is there and not to be used, which nemo, lightning and torch ask for", _presence),
    Patch("streams", "side streams in nemo.lightning.megatron_parallel.init_ddp and megatron's DDP", _streams),
    Patch("moves", ".cuda() in nemo's gpt_data_step and megatron's optimizer", _moves),
    Patch(
        "constructors", "torch.cuda.LongTensor in megatron's pipeline schedules and gradient clipping", _constructors
    ),
    Patch("random-state", "megatron.core.tensor_parallel.random keeps one CUDA generator per region", _random_state),
    Patch(
        "checkpoint-tensors", "nemo.lightning.io.pl asserts an initialised CUDA context on load", _checkpoint_tensors
    ),
    Patch("plain-kernels", "fused kernels megatron compiles for CUDA", _plain_kernels),
)
