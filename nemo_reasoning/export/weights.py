"""What a NeMo checkpoint holds, an adapter or a whole model, in the forms every export starts from."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import OmegaConf

from nemo_reasoning.backend.trust import check_weights
from nemo_reasoning.config.model import LORA_TARGETS, Architecture, PeftScheme, PeftSettings
from nemo_reasoning.errors import ExportError
from nemo_reasoning.models.families import family_named
from nemo_reasoning.models.sizes import linear_shapes
from nemo_reasoning.models.widening import Change

_MODEL, _LAYERS = "module.", "decoder.layers"
_WEIGHT = re.compile(
    r"module\.decoder\.layers\.(?:self_attention|mlp)\.(\w+)\.adapter\."
    r"(?:(linear_in|linear_out)\.weight|(weight_magnitude))"
)

_ROOMS = {
    "linear_qkv": "self_attention",
    "linear_proj": "self_attention",
    "linear_fc1": "mlp",
    "linear_fc2": "mlp",
}
Changes = dict[str, Change]  # by Hugging Face's name of a weight: from the base's, float32, to the trained one, float32


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter, as trained: y = W' x with W' = W + scale * linear_out @ linear_in.

    DoRA (arXiv 2402.09353, equation 5) gives the rows of W' lengths of their own: y = m W' x / ||W'||.

    Shapes: L layers, H hidden, F ffn, NH heads, KV key-value groups, D head size, r = `peft.dim`.

    Attributes:
        shape: The base model.
        peft: What was trained; `peft.scale` multiplies the adapter's output.
        weights: By Megatron's name of the linear, (linear_in, linear_out) of all layers:

            - linear_qkv  [L, r, H], [L, (NH + 2 KV) D, r]; rows per group: NH/KV query heads, key, value
            - linear_proj [L, r, NH D], [L, H, r]
            - linear_fc1  [L, r, H], [L, 2 F, r]; rows: gate, then up
            - linear_fc2  [L, r, F], [L, H, r]
        magnitudes: DoRA's m by the same names, [L, rows of linear_out]; empty for LoRA.
    """

    shape: Architecture
    peft: PeftSettings
    weights: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    magnitudes: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ExportError unless the weights are those of `shape` and `peft`."""
        if set(self.weights) != set(self.peft.target_modules):
            raise ExportError(
                f"the adapter holds {sorted(self.weights)}, but peft.target_modules is "
                f"{sorted(self.peft.target_modules)}; export with the configuration it was trained with"
            )
        if set(self.magnitudes) != (set(self.weights) if self.peft.scheme is PeftScheme.dora else set()):
            raise ExportError(
                f"the adapter holds magnitudes of {sorted(self.magnitudes)}, which does not suit "
                f"peft={self.peft.scheme.value}; export with the configuration it was trained with"
            )
        layers, dim, linears = self.shape.num_layers, self.peft.dim, linear_shapes(self.shape)
        for target, pair in self.weights.items():
            inputs, outputs = linears[target]
            found = [tuple(weight.shape) for weight in pair]
            expected: list[tuple[int, ...]] = [(layers, dim, inputs), (layers, outputs, dim)]
            if target in self.magnitudes:
                found.append(tuple(self.magnitudes[target].shape))
                expected.append((layers, outputs))
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

    def hf_magnitudes(self) -> dict[str, torch.Tensor]:
        """Return DoRA's m [out] by the module names of `hf_pairs`; nothing for LoRA."""
        return {
            f"layers.{layer}.{module}": part[:, 0]
            for target, magnitudes in self.magnitudes.items()
            for layer, rows in enumerate(magnitudes)
            for module, part in unfuse(target, rows[:, None], self.shape).items()
        }

    def changes(self) -> Changes:
        """Return what becomes of each weight of the base model that the adapter touches."""
        scale, magnitudes = self.peft.scale, self.hf_magnitudes()
        return {
            f"model.{module}.weight": _change(a, b, scale, magnitudes.get(module)) for module, a, b in self.hf_pairs()
        }


def _change(a: torch.Tensor, b: torch.Tensor, scale: float, magnitude: torch.Tensor | None) -> Change:
    def change(weight: torch.Tensor) -> torch.Tensor:
        merged = torch.addmm(weight, b.float(), a.float(), alpha=scale)
        if magnitude is None:
            return merged
        factor: torch.Tensor = magnitude.float() / torch.linalg.norm(merged, dim=1)
        return merged * factor[:, None]

    return change


def hf_modules(shape: Architecture) -> Mapping[str, tuple[str, ...]]:
    """Return the modules of a Hugging Face layer behind each of Megatron's linears, in the order of their rows."""
    return family_named(shape.family).hf_modules


def unfuse(target: str, rows: torch.Tensor, shape: Architecture) -> dict[str, torch.Tensor]:
    """Split the rows [rows, columns] of a Megatron linear among the Hugging Face modules it stands for."""
    parts: Sequence[torch.Tensor] = [rows]
    if target == "linear_qkv":
        groups = rows.view(shape.num_query_groups, -1, shape.head_dim, rows.shape[1])
        parts = [part.reshape(-1, rows.shape[1]) for part in (groups[:, :-2], groups[:, -2], groups[:, -1])]
    elif target == "linear_fc1":
        parts = rows.chunk(2)
    return dict(zip(hf_modules(shape)[target], parts, strict=True))


def is_adapter(checkpoint: Path) -> bool:
    """Whether a NeMo 2 checkpoint holds an adapter, and not a whole model."""
    return (checkpoint / "weights" / "adapter_metadata.json").is_file()


def read_adapter(checkpoint: Path, *, shape: Architecture, peft: PeftSettings) -> Adapter:
    """Read the trained adapter of a NeMo 2 checkpoint on the CPU, without building the model.

    Args:
        checkpoint: The checkpoint's folder, with `weights` and `context`.
        shape: The base model.
        peft: What was trained.

    Raises:
        ExportError: It is no adapter checkpoint, or not one of this base model and configuration.
    """
    if not is_adapter(checkpoint):
        raise ExportError(f"{checkpoint} is not a NeMo adapter checkpoint (no weights/adapter_metadata.json)")
    _check_scale(checkpoint, peft)
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in read_tensors(checkpoint / "weights").items():
        match = _WEIGHT.fullmatch(key)
        if match is None or match[1] not in LORA_TARGETS:
            raise ExportError(f"{checkpoint} holds {key}; only LoRA and DoRA on {', '.join(LORA_TARGETS)} are exported")
        pairs.setdefault(match[1], {})[match[2] or match[3]] = tensor
    ordered = {target: pairs[target] for target in LORA_TARGETS if target in pairs}
    return Adapter(
        shape,
        peft,
        {name: (parts["linear_in"], parts["linear_out"]) for name, parts in ordered.items()},
        {name: parts["weight_magnitude"] for name, parts in ordered.items() if "weight_magnitude" in parts},
    )


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


def read_tensors(weights: Path) -> dict[str, torch.Tensor]:
    """Return the model's tensors of a torch_dist checkpoint; the optimiser's stay on disk."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    metadata = check_weights(weights)
    if metadata is None:
        raise ExportError(f"{weights} has no .metadata, which every checkpoint has; restore it")
    tensors = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype)
        for key, entry in metadata.state_dict_metadata.items()
        if key.startswith(_MODEL) and isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(tensors, storage_reader=FileSystemReader(weights), no_dist=True)
    return tensors


@dataclass(frozen=True)
class FullWeights:
    """Every weight of a trained model.

    Attributes:
        shape: The model.
        peft: What was trained: `peft.scheme` is none.
        weights: By Hugging Face's name; tied embeddings have no head.
    """

    shape: Architecture
    peft: PeftSettings
    weights: Mapping[str, torch.Tensor]

    def changes(self) -> Changes:
        """Return what becomes of each weight of the base model: the trained one."""
        return {name: _replaced_by(weight) for name, weight in self.weights.items()}


def _replaced_by(trained: torch.Tensor) -> Change:
    return lambda weight: trained.float()


def read_trained(checkpoint: Path, *, shape: Architecture, peft: PeftSettings) -> Adapter | FullWeights:
    """Read what a checkpoint holds, on the CPU, without building the model; arguments are those of `read_adapter`.

    Raises:
        ExportError: It is not a checkpoint of this base model and configuration.
    """
    if peft.scheme is not PeftScheme.none:
        return read_adapter(checkpoint, shape=shape, peft=peft)
    if is_adapter(checkpoint):
        raise ExportError(f"{checkpoint} holds an adapter, not a whole model; export with the peft it was trained with")
    return FullWeights(shape, peft, _hf_weights(read_tensors(checkpoint / "weights"), shape, checkpoint))


def _hf_weights(tensors: dict[str, torch.Tensor], shape: Architecture, checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the weights under Hugging Face's names, without the rows that pad the vocabulary."""

    def take(key: str, *size: int) -> torch.Tensor:
        found = tensors.get(f"module.{key}")
        if found is None or tuple(found.shape[1:]) != size[1:] or found.shape[0] < size[0]:
            shown = None if found is None else tuple(found.shape)
            raise ExportError(f"{checkpoint}: {key} is {shown}, the base model needs {size}; is it its base?")
        return found[: size[0]]

    hidden, layers = shape.hidden_size, shape.num_layers
    weights = {
        "model.embed_tokens.weight": take("embedding.word_embeddings.weight", shape.vocab_size, hidden),
        "model.norm.weight": take("decoder.final_layernorm.weight", hidden),
    }
    if not shape.tie_embeddings:
        weights["lm_head.weight"] = take("output_layer.weight", shape.vocab_size, hidden)
    linears = linear_shapes(shape)
    for target, (inputs, outputs) in linears.items():
        stem = f"{_LAYERS}.{_ROOMS[target]}.{target}"
        for layer, rows in enumerate(take(f"{stem}.weight", layers, outputs, inputs)):
            for module, weight in unfuse(target, rows, shape).items():
                weights[f"model.layers.{layer}.{module}.weight"] = weight
    if shape.qkv_bias:
        bias = take(f"{_LAYERS}.self_attention.linear_qkv.bias", layers, linears["linear_qkv"][1])
        for layer, rows in enumerate(bias):
            for module, part in unfuse("linear_qkv", rows[:, None], shape).items():
                weights[f"model.layers.{layer}.{module}.bias"] = part[:, 0]
    for name, module in family_named(shape.family).hf_norms.items():
        of_head = "layernorm.weight" in name
        if of_head and not shape.qk_norm:
            continue
        for layer, norm in enumerate(take(f"{_LAYERS}.{name}", layers, shape.head_dim if of_head else hidden)):
            weights[f"model.layers.{layer}.{module}.weight"] = norm
    return weights
