"""Make NeMo build a base model in NF4, and load it one weight at a time."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nemo_reasoning.backend.patching import Patch, applied
from nemo_reasoning.peft.nf4 import require_bitsandbytes


@contextmanager
def nf4_linears(*, targets: Sequence[str], te_attention: bool = False) -> Iterator[None]:
    """Give models that NeMo builds in the block linears in NF4; call inside `backend` without Transformer Engine.

    A weight exists in full precision only between its reading or drawing and its quantization, one at a time
    on each rank.

    Args:
        targets: Megatron's names of the linears to quantize.
        te_attention: Whether attention is Transformer Engine's; the other layers are torch's.

    Raises:
        BackendError: bitsandbytes is not installed.
    """
    require_bitsandbytes()
    layers = Patch(
        "nf4-layers",
        "nemo.collections.llm.gpt.model.base.default_layer_spec",
        lambda: _layer_spec(targets, te_attention=te_attention),
    )
    loading = Patch(
        "nf4-loading", "nemo.lightning.io.pl.MegatronCheckpointIO loads all weights before the first is used", _loading
    )
    with applied(layers), applied(loading):
        yield


def _layer_spec(targets: Sequence[str], *, te_attention: bool) -> Sequence[tuple[Any, str, Any]]:
    from nemo.collections.llm.gpt.model import base

    from nemo_reasoning.peft.layers import nf4_layer_spec

    return [(base, "local_layer_spec", partial(nf4_layer_spec, targets=targets, te_attention=te_attention))]


def _loading() -> Sequence[tuple[Any, str, Any]]:
    from nemo.lightning.io.pl import MegatronCheckpointIO

    load = MegatronCheckpointIO.load_checkpoint

    def load_checkpoint(self: Any, path: Any, sharded_state_dict: Any = None, *args: Any, **kwargs: Any) -> Any:
        kept, pending = _part(sharded_state_dict or {})
        checkpoint = load(self, path, kept, *args, **kwargs)
        folder = Path(self._preprocess_checkpoint_load_path(path))
        for request in pending:
            request.data.fill(_read(request, folder))
        return checkpoint

    return [(MegatronCheckpointIO, "load_checkpoint", load_checkpoint)]


def _part(request: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Return a request for a checkpoint without pending weights, and the requests for those."""
    from nemo_reasoning.peft.layers import PendingWeight

    pending: list[Any] = []

    def without(part: Mapping[str, Any]) -> dict[str, Any]:
        kept = {}
        for key, value in part.items():
            if isinstance(getattr(value, "data", None), PendingWeight):
                pending.append(value)
            else:
                kept[key] = without(value) if isinstance(value, dict) else value
        return kept

    return without(request), pending


def _read(request: Any, folder: Path) -> torch.Tensor:
    """Return the whole weight of which a request asks for this rank's share, in host memory, and nothing else.

    Megatron's own loading wants all layers of a stored tensor at once.
    """
    from megatron.core.dist_checkpointing.mapping import ShardedTensorFactory
    from megatron.core.dist_checkpointing.strategies.checkpointable import CheckpointableShardedTensor
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    # a factory's parts, gate and up, are stored as one tensor
    share = request.build()[0] if isinstance(request, ShardedTensorFactory) else request
    layers = share.prepend_axis_num
    weight = torch.empty(share.global_shape[layers:], dtype=share.dtype)
    held = weight.view((1,) * layers + weight.shape)  # of all layers, this one
    first = share.global_offset[:layers] + (0,) * weight.dim()
    whole = replace(share, data=held, local_shape=tuple(held.shape), global_offset=first, prepend_axis_num=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(
            {whole.key: CheckpointableShardedTensor.from_sh_ten(whole)},
            storage_reader=FileSystemReader(folder),
            no_dist=True,
        )
    return weight
