"""A trained model as one Hugging Face directory: base and adapter merged, or every weight as trained."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

from nemo_reasoning.artifacts import write_json
from nemo_reasoning.config.model import Architecture, PeftSettings
from nemo_reasoning.errors import ExportError
from nemo_reasoning.export import verify
from nemo_reasoning.export.formats.base import NOT_VERIFIED, ExportFormat, ExportJob
from nemo_reasoning.export.quantised_base import TrainedBase
from nemo_reasoning.export.serve_commands import DOCKER
from nemo_reasoning.export.tokenizer import write_tokenizer
from nemo_reasoning.export.weights import Adapter, Changes, FullWeights
from nemo_reasoning.models.hf_config import read_hf_config
from nemo_reasoning.models.weight_files import DTYPES, base_files, read_file, read_weights
from nemo_reasoning.peft.nf4 import Nf4Base

_INDEX = "model.safetensors.index.json"

# The engine of NIM 1.x that reads fine-tuned weights.
_TRTLLM_ENGINE = "-e NIM_USE_TRTLLM_LEGACY_BACKEND=1 -e NIM_DISABLE_TRTLLM_PYTORCH_RT=1"


class Merged(ExportFormat):
    """A whole model that needs nothing beside it."""

    name, has_tokenizer = "merged", True

    def write(self, job: ExportJob, folder: Path) -> None:
        """Write tokenizer, weights and configurations."""
        write_tokenizer(job.formatter, out=folder)
        write_merged(
            job.trained,
            base=job.base.path,
            base_dtype=job.base_dtype,
            nf4=job.nf4(self.name),
            dtype=job.dtype,
            end_of_turn=job.formatter.end_of_turn,
            out=folder,
        )

    def verify(self, job: ExportJob, folder: Path) -> dict[str, Any]:
        """Compare logits within the rounding of the dtype, every weight's rounding, and the tokenizer."""
        return {**self._verify_weights(job, folder), "tokenizer": job.verify_tokenizer(folder)}

    def _verify_weights(self, job: ExportJob, folder: Path) -> dict[str, Any]:
        merge = merge_reference(job)
        if isinstance(merge, str):
            return {"logits": merge}
        compared: dict[str, Any] = {"batches": job.batches, "reference": merge.logits, "dtype": job.dtype}
        checks = {"logits": verify.verify_logits(verify.load_merged(folder), **compared) | merge.moved}
        if job.dtype != "float32":
            base: dict[str, Any] = {"base": job.base.path, "base_dtype": job.base_dtype, "nf4": merge.nf4}
            checks["rounding"] = verify.verify_rounding(folder, trained=job.trained, **base, **compared)
        return checks

    def serve_commands(
        self, *, name: str, base: str, peft: PeftSettings, folder: str, template: str, files: Sequence[str]
    ) -> dict[str, str]:
        """Return commands for vLLM and both generations of NIM."""
        model = f"-v {folder}:/opt/model:ro -e NIM_SERVED_MODEL_NAME={name}"
        return {
            "vllm": f"vllm serve {folder} --served-model-name {name}",
            "nim 1.x": f"{DOCKER} {model} -e NIM_FT_MODEL=/opt/model {_TRTLLM_ENGINE} $NIM_IMAGE",
            "nim 2.x": f"{DOCKER} {model} -e NIM_MODEL_PATH=/opt/model $NIM_MODEL_FREE_IMAGE",
        }


class MergeReference(NamedTuple):
    """What a merge has to compute.

    Attributes:
        nf4: How the base under it is quantized; None for the original weights.
        logits: Of the job's batches.
        moved: How far they are from the training's, where a QLoRA adapter is merged onto the original base.
    """

    nf4: Nf4Base | None
    logits: Sequence[torch.Tensor]
    moved: dict[str, float]


def merge_reference(job: ExportJob) -> MergeReference | str:
    """Return what merged weights are compared with, or why they are not."""
    if job.reference is None:
        return f"{NOT_VERIFIED}: no trained model was given to compare with"
    nf4, moved = job.nf4(Merged.name), dict[str, float]()
    if job.qlora is None or nf4 is not None:
        return MergeReference(nf4, job.reference, moved)
    if job.qlora.original_logits is None:
        return f"{NOT_VERIFIED}: no model with the original base was given to compare with"
    reference = job.qlora.original_logits(job.batches)
    off = verify.logits_difference(reference, job.reference)
    return MergeReference(nf4, reference, {"relative_rms_from_training": off["relative_rms"]})


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
        ExportError: The base is quantized or has no weights, or the adapter does not fit it.
    """
    placed, total = dict[str, str](), 0
    merged = merged_weights(trained, base=base, base_dtype=base_dtype, nf4=nf4)
    for shard, entries in groupby(merged, key=itemgetter(0)):
        tensors = {name: _saved_as(tensor, DTYPES[dtype]) for _, name, tensor in entries}
        save_file(tensors, out / shard, metadata={"format": "pt"})
        placed.update(dict.fromkeys(tensors, shard))
        total += sum(tensor.nbytes for tensor in tensors.values())
    if len(set(placed.values())) > 1:
        write_json(out / _INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(placed.items()))})
    _write_configs(read_hf_config(base), base=base, dtype=dtype, end_of_turn=end_of_turn, out=out)


def _saved_as(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype).contiguous() if tensor.is_floating_point() else tensor


def merged_weights(
    trained: Adapter | FullWeights, *, base: Path, base_dtype: str, nf4: Nf4Base | None
) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Yield a model's weights as trained, one at a time: file, name under Hugging Face, and the weight in float32.

    Arguments and errors are those of `write_merged`.
    """
    config = read_hf_config(base)
    if "quantization_config" in config:
        raise ExportError(f"{base} is quantised; merge onto the unquantised base model")
    changes, dropped = trained.changes(), {"lm_head.weight"} if config.get("tie_word_embeddings") else set()
    held = None if nf4 is None else _held_base(base, base_dtype, nf4=nf4, shape=trained.shape)
    for file, shard in base_files(base).items():
        for name, tensor in read_file(file):
            if name not in dropped:
                yield shard, name, _as_trained(name, tensor, changes, base_dtype=DTYPES[base_dtype], held=held)
    if changes:
        raise ExportError(f"{base} has no {sorted(changes)[0]}, which training changed; is it the base it trained on?")


def _held_base(base: Path, base_dtype: str, *, nf4: Nf4Base, shape: Architecture) -> TrainedBase:
    """Return a base as a QLoRA run held it, in the wider of the base's dtype and the run's."""
    read, dtype = read_weights(base, base_dtype), torch.promote_types(DTYPES[base_dtype], DTYPES[nf4.dtype])
    return TrainedBase(lambda name: read(name).to(dtype), base=nf4, shape=shape)


def _as_trained(
    name: str, tensor: torch.Tensor, changes: Changes, *, base_dtype: torch.dtype, held: TrainedBase | None
) -> torch.Tensor:
    """Return a base's weight as trained, removing from `changes` what was used."""
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.to(base_dtype)
    if name not in changes:
        return tensor.float()
    dequantised = None if held is None else held.weight(name)
    return changes.pop(name)((tensor if dequantised is None else dequantised).float())


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
