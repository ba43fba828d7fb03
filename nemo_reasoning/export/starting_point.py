"""Where a second stage begins: an earlier adapter, trained further or merged into the base."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from nemo_reasoning.artifacts import cached_folder, file_sha256, write_json
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.export.from_run import adapter_folder, other_base
from nemo_reasoning.models.hub import BaseModel, fetch_base, weights_fingerprint
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.models.weight_files import base_files, read_file
from nemo_reasoning.peft.hf_adapter import HfAdapter, read_hf_adapter
from nemo_reasoning.training.run_dir import Run

MADE_FROM = "made_from.json"
_INDEX = "model.safetensors.index.json"
_WEIGHTS = (".safetensors", ".bin", ".index.json")


@dataclass(frozen=True)
class StartingPoint:
    """What training begins with beside its base.

    Attributes:
        weights: The adapter's, as `TrainingInputs.start` takes them; None for a fresh one.
        chain: As `TrainingInputs.chain` takes it.
    """

    weights: Mapping[str, tuple[torch.Tensor, torch.Tensor]] | None
    chain: list[dict[str, str]]


def starting_point(run: Run, base: BaseModel, *, tell: Callable[[str], None]) -> tuple[BaseModel, StartingPoint]:
    """Return the base of a run with `peft.start_from`, and what training begins with.

    Where the adapter is merged, the new base is written to the run's folder, once; again where one of another adapter
    or base lies there, unless checkpoints were trained on that one.

    Args:
        run: The run.
        base: What `model.source` names.
        tell: Prints a line for the user.

    Raises:
        ConfigError: The adapter is not one of this base, or cannot be used so.
    """
    peft, cache_dir = run.settings.peft, Path(run.settings.cache_dir).expanduser()
    assert peft.start_from is not None
    folder, chain = adapter_folder(peft.start_from, base)
    adapter = read_hf_adapter(folder, shape=architecture_from_hf(base.path))
    if other := other_base(peft.start_from, base):
        tell(other)
    chain = [*chain, {"adapter": peft.start_from, "weights": file_sha256(adapter.file), "start": peft.start.value}]
    if not peft.merges_start:
        tell(f"going on with the adapter {peft.start_from}")
        return base, StartingPoint(adapter.fused(), chain)
    made_from = {"adapter": chain[-1]["weights"], "base": weights_fingerprint(base.path)}

    def build(out: Path) -> None:
        write_merged_base(adapter, base=base.path, out=out)
        write_json(out / MADE_FROM, made_from)

    def current(folder: Path) -> bool:
        in_use = bool(run.checkpoints) and not run.settings.restart
        return folder.is_dir() and (in_use or _made_from(folder) == made_from)

    cached_folder(run.merged_base, build, current=current)
    tell(f"base model: {base.name} with the adapter {peft.start_from} merged into it")
    return fetch_base(str(run.merged_base), revision=None, cache_dir=cache_dir), StartingPoint(None, chain)


def _made_from(folder: Path) -> Any:
    """Return what a merged base was made from; None where it does not say."""
    try:
        return json.loads((folder / MADE_FROM).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_merged_base(adapter: HfAdapter, *, base: Path, out: Path) -> None:
    """Write a base model with an adapter merged into it, in the base's dtypes, one of its files at a time.

    Args:
        adapter: What to merge.
        base: Hugging Face directory of the base; its tokenizer and configurations are copied.
        out: An existing folder.
    """
    placed, files, total = dict[str, str](), base_files(base), 0
    left_out = {"lm_head.weight"} if adapter.shape.tie_embeddings else set()  # the embedding, in the same memory
    for file, shard in files.items():
        read = ((name, tensor) for name, tensor in read_file(file) if name not in left_out)
        tensors = {name: adapter.change(name, tensor).contiguous() for name, tensor in read}
        save_file(tensors, out / shard, metadata={"format": "pt"})
        placed |= dict.fromkeys(tensors, shard)
        total += sum(tensor.nbytes for tensor in tensors.values())
    if len(files) > 1:
        write_json(out / _INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(placed.items()))})
    absent = sorted({f"model.layers.{layer}.{module}.weight" for layer, module in adapter.weights} - placed.keys())
    if absent:
        raise ConfigError(f"{base} has no {absent[0]}, which the adapter changes; is it the base it was trained on?")
    for file in base.iterdir():
        if file.is_file() and not file.name.endswith(_WEIGHTS):
            shutil.copyfile(file, out / file.name)
