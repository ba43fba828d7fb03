"""A trained model as one Hugging Face directory: base and adapter merged, or every weight as trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from nemo_reasoning.artifacts import write_json
from nemo_reasoning.errors import ExportError
from nemo_reasoning.export.quantised_base import TrainedBase
from nemo_reasoning.export.weights import Adapter, Changes, FullWeights
from nemo_reasoning.models.hub import read_hf_config
from nemo_reasoning.peft.nf4 import Nf4Base

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def write_merged(
    trained: Adapter | FullWeights,
    *,
    base: Path,
    base_dtype: str,
    nf4: Nf4Base | None = None,
    dtype: str,
    end_of_turn: int,
    out: Path,
) -> None:
    """Write weights, config.json and generation_config.json to the folder `out`.

    W + scale * B @ A, for DoRA with its rows' lengths set, is computed in float32 and saved as `dtype`,
    one of the base's files at a time, so that memory never holds more than one. W is first rounded to
    `base_dtype`: the adapter was trained on the rounded weights, not on the original ones. Weights that
    were trained themselves take the place of the base's.

    Args:
        trained: What to merge.
        base: The base model's Hugging Face directory.
        base_dtype: Name of the dtype in which NeMo holds the base.
        nf4: How a QLoRA run held it, to merge onto the dequantised weights; None for the original ones.
        dtype: Name of the dtype to save.
        end_of_turn: Token that ends the assistant's turn; generation stops there.
        out: An existing folder.

    Raises:
        ExportError: The base is quantised or has no safetensors, or the adapter does not fit it.
    """
    config = read_hf_config(base)
    if "quantization_config" in config:
        raise ExportError(f"{base} is quantised; merge onto the unquantised base model")
    changes, dropped = trained.changes(), {"lm_head.weight"} if config.get("tie_word_embeddings") else set()
    held = None if nf4 is None else TrainedBase(_reader(base, base_dtype), base=nf4, shape=trained.shape)
    placed, total = {}, 0
    for shard in _shards(base):
        tensors = _merge_shard(
            base / shard,
            changes,
            dropped=dropped,
            base_dtype=DTYPES[base_dtype],
            dtype=DTYPES[dtype],
            held=held,
        )
        save_file(tensors, out / shard, metadata={"format": "pt"})
        placed.update(dict.fromkeys(tensors, shard))
        total += sum(tensor.nbytes for tensor in tensors.values())
    if changes:
        raise ExportError(f"{base} has no {sorted(changes)[0]}, which training changed; is it the base it trained on?")
    if (base / _INDEX).is_file():
        write_json(out / _INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(placed.items()))})
    _write_configs(config, base=base, dtype=dtype, end_of_turn=end_of_turn, out=out)


def _shards(base: Path) -> list[str]:
    if (base / _INDEX).is_file():
        index = json.loads((base / _INDEX).read_text(encoding="utf-8"))
        return sorted(set(index["weight_map"].values()))
    if (base / _SINGLE).is_file():
        return [_SINGLE]
    raise ExportError(f"{base} has no {_SINGLE} and no {_INDEX}; save the base model with safetensors first")


def _reader(base: Path, dtype: str) -> Callable[[str], torch.Tensor]:
    """Return how to read one weight of a base model, wherever it is, rounded to `dtype`."""
    homes = {}
    for shard in _shards(base):
        with safe_open(base / shard, framework="pt") as source:
            homes.update(dict.fromkeys(source.keys(), shard))

    def read(name: str) -> torch.Tensor:
        with safe_open(base / homes[name], framework="pt") as source:
            weight: torch.Tensor = source.get_tensor(name).to(DTYPES[dtype])
        return weight

    return read


def _merge_shard(
    shard: Path,
    changes: Changes,
    *,
    dropped: set[str],
    base_dtype: torch.dtype,
    dtype: torch.dtype,
    held: TrainedBase | None,
) -> dict[str, torch.Tensor]:
    """Return a file's tensors as trained, without the `dropped`, removing from `changes` what was used."""
    tensors = {}
    with safe_open(shard, framework="pt") as source:
        for name in source.keys():  # noqa: SIM118 - the handle is not a mapping
            if name in dropped:
                continue
            tensor = source.get_tensor(name)
            if not tensor.is_floating_point():
                tensors[name] = tensor
                continue
            tensor = tensor.to(base_dtype)
            if name in changes:
                dequantised = None if held is None else held.weight(name)
                tensor = changes.pop(name)((tensor if dequantised is None else dequantised).float())
            tensors[name] = tensor.to(dtype)
    return tensors


def _write_configs(config: dict[str, Any], *, base: Path, dtype: str, end_of_turn: int, out: Path) -> None:
    """Copy the base's two configurations, with the new dtype and every token that ends a turn."""
    generation_file = base / "generation_config.json"
    generation = json.loads(generation_file.read_text(encoding="utf-8")) if generation_file.is_file() else {}
    ends = [end_of_turn, *_as_list(generation.get("eos_token_id")), *_as_list(config.get("eos_token_id"))]
    eos = list(dict.fromkeys(ends))
    # "torch_dtype" is the name every transformers release reads; newer ones write "dtype"
    kept = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype", "_name_or_path")}
    write_json(out / "config.json", {**kept, "torch_dtype": dtype, "eos_token_id": eos})
    generation.pop("_from_model_config", None)  # else readers may derive it anew
    generation = {"bos_token_id": config.get("bos_token_id"), **generation, "eos_token_id": eos}
    write_json(out / "generation_config.json", generation)


def _as_list(ids: int | list[int] | None) -> list[int]:
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else ids
