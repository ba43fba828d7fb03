"""LoRA weights of a NeMo checkpoint, in the one form every export starts from."""

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import OmegaConf

from nemo_reasoning.config import LORA_TARGETS, Architecture, PeftSettings
from nemo_reasoning.errors import ExportError
from nemo_reasoning.models.shape import linear_shapes

_MODEL = "module."
_WEIGHT = re.compile(r"module\.decoder\.layers\.(?:self_attention|mlp)\.(\w+)\.adapter\.(linear_in|linear_out)\.weight")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter, as trained: y = W x + scale * linear_out @ linear_in @ x.

    Shapes: L layers, H hidden, F ffn, NH heads, KV key-value groups, D head size, r = `peft.dim`.

    Attributes:
        shape: The base model.
        peft: What was trained; `peft.scale` multiplies the adapter's output.
        weights: By Megatron's name of the linear, (linear_in, linear_out) of all layers:

            - linear_qkv  [L, r, H], [L, (NH + 2 KV) D, r]; rows per group: NH/KV query heads, key, value
            - linear_proj [L, r, NH D], [L, H, r]
            - linear_fc1  [L, r, H], [L, 2 F, r]; rows: gate, then up
            - linear_fc2  [L, r, F], [L, H, r]
    """

    shape: Architecture
    peft: PeftSettings
    weights: Mapping[str, tuple[torch.Tensor, torch.Tensor]]

    def __post_init__(self) -> None:
        """Raise ExportError unless the weights are those of `shape` and `peft`."""
        if set(self.weights) != set(self.peft.target_modules):
            raise ExportError(
                f"the adapter holds {sorted(self.weights)}, but peft.target_modules is "
                f"{sorted(self.peft.target_modules)}; export with the configuration it was trained with"
            )
        layers, dim, linears = self.shape.num_layers, self.peft.dim, linear_shapes(self.shape)
        for target, pair in self.weights.items():
            inputs, outputs = linears[target]
            found, expected = (
                [tuple(weight.shape) for weight in pair],
                [(layers, dim, inputs), (layers, outputs, dim)],
            )
            if found != expected:
                raise ExportError(
                    f"{target}: the adapter's weights are {found}, the base model with peft.dim={dim} "
                    f"needs {expected}; export with the base model and the configuration it was trained with"
                )

    def hf_pairs(self) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        """Yield (module, A [r, in], B [out, r]) under Hugging Face's names, such as layers.0.mlp.up_proj."""
        for target, (linear_in, linear_out) in self.weights.items():
            for layer, (a, fused) in enumerate(zip(linear_in, linear_out, strict=True)):
                for module, b in unfuse(target, fused, self.shape).items():
                    yield f"layers.{layer}.{module}", a, b


def unfuse(target: str, rows: torch.Tensor, shape: Architecture) -> dict[str, torch.Tensor]:
    """Split the rows of a Megatron linear among the Hugging Face modules it stands for."""
    if target == "linear_qkv":
        groups = rows.view(shape.num_query_groups, -1, shape.head_dim, rows.shape[1])
        parts = {"q_proj": groups[:, :-2], "k_proj": groups[:, -2], "v_proj": groups[:, -1]}
        return {f"self_attn.{name}": part.reshape(-1, rows.shape[1]) for name, part in parts.items()}
    if target == "linear_fc1":
        gate, up = rows.chunk(2)
        return {"mlp.gate_proj": gate, "mlp.up_proj": up}
    return {{"linear_proj": "self_attn.o_proj", "linear_fc2": "mlp.down_proj"}[target]: rows}


def read_adapter(checkpoint: Path, *, shape: Architecture, peft: PeftSettings) -> Adapter:
    """Read the trained adapter of a NeMo 2 checkpoint on the CPU, without building the model.

    Args:
        checkpoint: The checkpoint's folder, with `weights` and `context`.
        shape: The base model.
        peft: What was trained.

    Raises:
        ExportError: It is no adapter checkpoint, or not one of this base model and configuration.
    """
    if not (checkpoint / "weights" / "adapter_metadata.json").is_file():
        raise ExportError(f"{checkpoint} is not a NeMo adapter checkpoint (no weights/adapter_metadata.json)")
    _check_scale(checkpoint, peft)
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in _read_tensors(checkpoint / "weights").items():
        match = _WEIGHT.fullmatch(key)
        if match is None or match[1] not in LORA_TARGETS:
            raise ExportError(f"{checkpoint} holds {key}; only LoRA on {', '.join(LORA_TARGETS)} can be exported")
        pairs.setdefault(match[1], {})[match[2]] = tensor
    ordered = {target: pairs[target] for target in LORA_TARGETS if target in pairs}
    return Adapter(shape, peft, {name: (pair["linear_in"], pair["linear_out"]) for name, pair in ordered.items()})


def _check_scale(checkpoint: Path, peft: PeftSettings) -> None:
    """Compare with what NeMo recorded; it scales by alpha / dim."""
    path = checkpoint / "context" / "model.yaml"
    recorded = OmegaConf.select(OmegaConf.load(path), "model_transform") if path.is_file() else None
    if recorded is None or "dim" not in recorded or "alpha" not in recorded:
        raise ExportError(f"{path} does not record the LoRA that was trained; restore the checkpoint's context")
    scale = recorded.alpha / recorded.dim
    if recorded.dim != peft.dim or abs(scale - peft.scale) > 1e-6 * scale:
        raise ExportError(
            f"{checkpoint} was trained with dim={recorded.dim} and a scale of {scale:g}, the configuration "
            f"says peft.dim={peft.dim} and {peft.scale:g}; export with the configuration it was trained with"
        )


def _read_tensors(weights: Path) -> dict[str, torch.Tensor]:
    """Return the model's tensors of a torch_dist checkpoint; the optimiser's stay on disk."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = FileSystemReader(weights)
    tensors = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype)
        for key, entry in reader.read_metadata().state_dict_metadata.items()
        if key.startswith(_MODEL) and isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors
