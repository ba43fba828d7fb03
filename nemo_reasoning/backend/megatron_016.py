"""What NeMo 2.6 and 2.7 call in Megatron-Core 0.15 and 0.16 no longer has; chosen by what is there.

Held whether or not CUDA and Transformer Engine are present, and before NeMo is imported.
"""

import inspect
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from nemo_reasoning.backend.patching import Patch
from nemo_reasoning.backend.versions import find_module
from nemo_reasoning.errors import BackendError

_STRATEGIES = "megatron.core.dist_checkpointing.strategies"
_DROPPED: dict[str, Any] = {"no_weight_decay_cond": None, "scale_lr_cond": None, "lr_mult": 1.0}


def needed() -> tuple[Patch, ...]:
    """Return the patches that the installed Megatron-Core calls for; none on 0.15 and on NVIDIA's 25.11 image."""
    from megatron.core.optimizer import get_megatron_optimizer

    accepted = inspect.signature(get_megatron_optimizer).parameters
    patches = () if set(_DROPPED) <= set(accepted) else (OPTIMIZER_CALL,)
    return patches if find_module(f"{_STRATEGIES}.tensorstore") else (*patches, TENSORSTORE)


def _optimizer_call() -> Sequence[tuple[Any, str, Any]]:
    from megatron.core import optimizer

    make = optimizer.get_megatron_optimizer

    def without_dropped_keywords(*args: Any, **kwargs: Any) -> Any:
        for name, default in _DROPPED.items():
            given = kwargs.pop(name, default)
            if given is not default and given != default:
                raise BackendError(
                    f"{name}={given!r} was passed to get_megatron_optimizer, which takes no {name} in this "
                    "Megatron-Core; leave it at its default, or use Megatron-Core 0.15"
                )
        return make(*args, **kwargs)

    return [(optimizer, "get_megatron_optimizer", without_dropped_keywords)]


class _Gone(ModuleType):
    """Stands where a module was, so that it can be imported, and refuses to be used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise BackendError(
            f"{self.__name__}.{name} is gone from this Megatron-Core: zarr checkpoints need Megatron-Core 0.15"
        )


def _tensorstore() -> Sequence[tuple[Any, str, Any]]:
    from megatron.core.dist_checkpointing import strategies

    return [(strategies, "tensorstore", _Gone(f"{_STRATEGIES}.tensorstore"))]


OPTIMIZER_CALL = Patch(
    "optimizer-call",
    "nemo.lightning passes no_weight_decay_cond, scale_lr_cond and lr_mult to get_megatron_optimizer",
    _optimizer_call,
)
TENSORSTORE = Patch(
    "tensorstore",
    "nemo.utils.callbacks.dist_ckpt_io imports strategies.tensorstore, and without it cannot save",
    _tensorstore,
)
