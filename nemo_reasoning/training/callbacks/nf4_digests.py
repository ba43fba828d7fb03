"""What a QLoRA run's quantized base is, bit by bit, so that an export and a continued run can prove they have it."""

from pathlib import Path
from typing import Any, Self

import torch.distributed as dist

from nemo_reasoning.artifacts import write_json
from nemo_reasoning.errors import CheckpointError
from nemo_reasoning.peft.nf4 import DIGESTS_FILE, SEPARATELY, nf4_base, read_digests
from nemo_reasoning.training.callbacks.base import Callback, Loop, RunContext

_CHANGED = "its base model or precision has changed. Restore them, or choose another name"


class Nf4Digests(Callback):
    """Writes checksums of the quantized weights to the run's folder, or compares them with those of its first start."""

    position = 2

    def __init__(self, folder: Path) -> None:
        """Take the run's folder."""
        self.folder = folder

    @classmethod
    def from_run(cls, context: RunContext) -> Self | None:
        """Write them where the base is quantized."""
        return cls(context.run.path) if nf4_base(context.run.settings) else None

    def on_start(self, loop: Loop) -> None:
        """Gather the checksums of all ranks.

        Raises:
            CheckpointError: The run began on a base with other bits.
        """
        found = _of_all_ranks(dict(_digests(loop.model)))
        known = read_digests(self.folder)
        if known is not None and known != found:
            changed = sorted(key for key in found.keys() | known.keys() if found.get(key) != known.get(key))
            shares = any(len(digests) > 1 for digests in known.values())
            raise CheckpointError(
                f"{self.folder}: quantizing the base gives other bits than at the run's first start, in "
                f"{len(changed)} of {len(found)} linears such as {changed[0]}; " + (SEPARATELY if shares else _CHANGED)
            )
        if loop.first_rank:
            write_json(self.folder / DIGESTS_FILE, found)


def _digests(model: Any) -> Any:
    """Yield ("layer.target", digest) of the quantized linears of this stage; layers count from 0 over all stages."""
    from megatron.core.transformer.transformer_layer import TransformerLayer

    for layer in model.modules():
        if isinstance(layer, TransformerLayer):
            for name, module in layer.named_modules():
                if getattr(module, "quant_state", None) is not None:
                    target = name.removesuffix(".to_wrap").rpartition(".")[2]
                    yield f"{layer.layer_number - 1}.{target}", module.digest


def _of_all_ranks(own: dict[str, str]) -> dict[str, list[str]]:
    """Return the digests that the ranks have found of each linear; one, where they agree."""
    gathered: list[Any] = [own]
    if dist.get_world_size() > 1:
        gathered = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, own)
    found: dict[str, set[str]] = {}
    for digests in gathered:
        for key, value in digests.items():
            found.setdefault(key, set()).add(value)
    return {key: sorted(values) for key, values in sorted(found.items())}
