"""Other implementations of AdamW in the place of the one that Megatron chooses.

Megatron takes Transformer Engine's fused Adam, apex's, or torch's plain one, whichever it finds first. Its
optimiser keeps the float32 copies of the weights and its checkpoints; what is put in here only computes
the update. Resuming is exact, since the checkpoints hold the 8-bit state as it is.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from nemo_reasoning.backend.patching import Patch, applied
from nemo_reasoning.config.trainer import OptimKind
from nemo_reasoning.training.failures import NonFiniteLoss

# bitsandbytes scales its 8-bit states by blocks of 256 entries, so these have not the shape of a parameter.
_BLOCKS = ("absmax1", "absmax2")
_CODES = ("qmap1", "qmap2")  # the 256 values that the 8 bits stand for: constants


@contextmanager
def optimizer_in_use(kind: OptimKind, *, distributed: bool = False) -> Iterator[None]:
    """Let Megatron build optimisers of a kind for the length of the block; `distributed` is for its own Adam."""
    if kind is OptimKind.adamw:
        with applied(_DISTRIBUTED) if distributed else nullcontext():
            yield
        return
    patch = Patch(f"optimizer-{kind.value}", "megatron.core.optimizer takes whichever Adam it finds", _PATCHES[kind])
    with applied(patch):
        yield


def guard_updates(optimizer: Any, skip: Callable[[], bool]) -> None:
    """Ask before an update whose gradient is NaN or infinite; Megatron leaves it out as one that overflowed.

    Args:
        optimizer: Megatron's; changed in place.
        skip: Whether to leave the update out. It is asked on all ranks, as they know the norm of all.

    Raises:
        NonFiniteLoss: From the step on which `skip` says no.
    """
    prepare = optimizer.prepare_grads

    def guarded() -> bool:
        overflowed: bool = prepare()
        if overflowed or math.isfinite(float(optimizer.get_grad_norm())):
            return overflowed
        if not skip():
            raise NonFiniteLoss("the norm of the gradient is no number")
        return True

    optimizer.prepare_grads = guarded


def _fused() -> Sequence[tuple[Any, str, Any]]:
    import torch
    from megatron.core import optimizer

    def adam(*, adam_w_mode: bool, **arguments: Any) -> Any:
        return (torch.optim.AdamW if adam_w_mode else torch.optim.Adam)(**arguments, fused=True)

    return [(optimizer, "USING_PYTORCH_OPTIMIZER", False), (optimizer, "Adam", adam)]


def _eight_bit(*, paged: bool) -> Sequence[tuple[Any, str, Any]]:
    from megatron.core import optimizer
    from megatron.core.optimizer import optimizer as wrappers

    build = optimizer._get_megatron_optimizer_based_on_param_groups
    share = wrappers.optim_state_to_sharding_state

    def adam(*, adam_w_mode: bool, **arguments: Any) -> Any:
        return _checkpointed_class()(**arguments, optim_bits=8, is_paged=paged)

    def build_with_states(*args: Any, **kwargs: Any) -> Any:
        built = build(*args, **kwargs)
        built.init_state_fn = _init_states  # Megatron's own makes the states of torch's Adam
        return built

    def share_blocks(state: Any, parameters: Mapping[int, Any], exclude_keys: Any = ()) -> None:
        _share_with_blocks(state, parameters, lambda: share(state, parameters, exclude_keys))

    return [
        (optimizer, "USING_PYTORCH_OPTIMIZER", False),
        (optimizer, "Adam", adam),
        (optimizer, "_get_megatron_optimizer_based_on_param_groups", build_with_states),
        (wrappers, "optim_state_to_sharding_state", share_blocks),
    ]


def _init_states(adam: Any, config: Any = None) -> None:
    """Make the states that a checkpoint is about to fill."""
    for gindex, group in enumerate(adam.param_groups):
        for pindex, parameter in enumerate(group["params"]):
            if not adam.state[parameter]:
                adam.init_state(group, parameter, gindex, pindex)


def _checkpointed_class() -> type[Any]:
    import torch
    from bitsandbytes import optim

    adamw: Any = optim.AdamW

    class AdamW8bit(adamw):  # type: ignore[misc]
        """Tells its states one by one, as Megatron stores them, and is paged again after it was loaded."""

        def state_dict(self) -> dict[str, Any]:
            plain: dict[str, Any] = torch.optim.Optimizer.state_dict(self)
            return plain

        def load_state_dict(self, state_dict: dict[str, Any], move_to_device: bool = True) -> None:
            super().load_state_dict(state_dict, move_to_device)
            for parameter, state in self.state.items():
                if state and state["state1"].dtype is torch.uint8:
                    state["qmap1"] = self.name2qmap["dynamic"].to(parameter.device)
                    state["qmap2"] = self.name2qmap["udynamic"].to(parameter.device)
                    for name in ("state1", "state2"):
                        state[name] = self.get_state_buffer(parameter, dtype=torch.uint8).copy_(state[name])

    return AdamW8bit


def _share_with_blocks(state: Any, parameters: Mapping[int, Any], share: Callable[[], None]) -> None:
    """Let Megatron shard what has the shape of a parameter, and add the scales of the blocks as whole objects."""
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensorFactory

    apart = {number: {key: own[key] for key in _BLOCKS if key in own} for number, own in state["state"].items()}
    state["state"] = {
        number: {key: value for key, value in own.items() if key not in (*_BLOCKS, *_CODES)}
        for number, own in state["state"].items()
    }
    share()
    for number, blocks in apart.items():
        place = parameters[number]
        tensor = next(iter(nested_values(place.build()))) if isinstance(place, ShardedTensorFactory) else place
        # Layers share the key of their parameter; the offset tells them, and tensor-parallel ranks, apart.
        offset = ".".join(str(index) for index in tensor.local_chunk_offset_in_global())
        for key, value in blocks.items():
            state["state"][number][key] = ShardedObject(
                f"optimizer.state.{key}.{place.key}.{offset}", value, (1,), (0,), replica_id=place.replica_id
            )


def _distributed() -> Sequence[tuple[Any, str, Any]]:
    import torch
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

    shard, fill = DistributedOptimizer.sharded_state_dict, DistributedOptimizer._set_main_param_and_optimizer_states

    def sharded_state_dict(self: Any, model_state: Any = None, is_loading: bool = False, **rest: Any) -> Any:
        adam = self.optimizer
        if is_loading and isinstance(adam, torch.optim.Adam):  # AdamW too; whose states come with the first step
            for parameter in (one for group in adam.param_groups for one in group["params"] if not adam.state[one]):
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                adam.state[parameter] = {"step": torch.tensor(0.0), **moments}
        return shard(self, model_state or {}, is_loading, **rest)

    def set_states(self: Any, model_param: Any, tensors: dict[str, Any]) -> None:
        group, place = self.model_param_group_index_map[model_param]
        state = self.optimizer.state[self.optimizer.param_groups[group]["params"][place]]
        if "step" in state:  # loaded as one tensor for all parameters, each of which would count it up
            state["step"] = state["step"].clone()
            tensors = {"step": state["step"], **tensors}
        fill(self, model_param, tensors)

    return [
        (DistributedOptimizer, "sharded_state_dict", sharded_state_dict),
        (DistributedOptimizer, "_set_main_param_and_optimizer_states", set_states),
    ]


_DISTRIBUTED = Patch(
    "distributed-optimizer", "megatron.core.optimizer.distrib_optimizer loads no step of torch's Adam", _distributed
)
_PATCHES: dict[OptimKind, Callable[[], Sequence[tuple[Any, str, Any]]]] = {
    OptimKind.fused_adamw: _fused,
    OptimKind.adamw_8bit: lambda: _eight_bit(paged=False),
    OptimKind.paged_adamw_8bit: lambda: _eight_bit(paged=True),
}
