"""Layers of a Hugging Face model for products with few rows on a CPU: weights in oneDNN's own layout, fewer operations.

torch gives oneDNN a weight as it lies, and oneDNN brings it into blocks anew for every product: with the few rows of a
decoding step that takes as long as the product. Packed once, it is read once, and a row's result is the same
whatever the number of rows beside it.
"""

from collections.abc import Callable
from typing import Any

import torch

from nemo_reasoning.inference.hf.attention import grouped_attention

_GATED = ("LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP")
_ATTENTION = ("LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention")


class PackedLinear(torch.nn.Module):
    """Linear layers of one input as one product: their outputs stand side by side."""

    def __init__(self, *layers: torch.nn.Linear) -> None:
        """Take layers that have all a bias or none."""
        super().__init__()
        biases = [layer.bias for layer in layers if layer.bias is not None]
        whole = torch.cat([layer.weight.detach() for layer in layers])
        self.sizes = [layer.out_features for layer in layers]
        self._weight = torch.ops.mkldnn._reorder_linear_weight(whole, None)
        self._bias = torch.cat([bias.detach() for bias in biases]) if biases else None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map [..., in] to [..., out]."""
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(hidden, self._weight, self._bias, "none", [], "")
        return output


class GatedMLP(torch.nn.Module):
    """act(gate(x)) * up(x), brought back to the width of x."""

    def __init__(self, mlp: Any) -> None:
        """Take over a model's own."""
        super().__init__()
        self.up, self.down, self.activation = PackedLinear(mlp.gate_proj, mlp.up_proj), mlp.down_proj, mlp.act_fn

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map [rows, positions, size] to the same."""
        gate, up = self.up(hidden).split(self.up.sizes, dim=-1)
        output: torch.Tensor = self.down(self.activation(gate) * up)
        return output


class Attention(torch.nn.Module):
    """Attention with one product for queries, keys and values, and one rotation for queries and keys."""

    def __init__(self, attention: Any) -> None:
        """Take over a model's own."""
        super().__init__()
        self.projections = PackedLinear(attention.q_proj, attention.k_proj, attention.v_proj)
        self.o_proj, self._size, self._layer = attention.o_proj, attention.head_dim, attention.layer_idx
        self._heads, self._groups = (width // self._size for width in self.projections.sizes[:2])
        self.num_key_value_groups, self.is_causal, self._scaling = self._heads // self._groups, True, attention.scaling
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        self._norms = torch.nn.ModuleList(norm for norm in norms if norm is not None)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor,
        past_key_values: Any,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        """As transformers' layers, with a cache."""
        rows, positions = hidden_states.shape[:2]
        both, values = (
            self.projections(hidden_states)
            .view(rows, positions, -1, self._size)
            .split([self._heads + self._groups, self._groups], dim=2)
        )
        if self._norms:
            parts = both.split([self._heads, self._groups], dim=2)
            both = torch.cat([norm(part) for norm, part in zip(self._norms, parts, strict=True)], dim=2)
        cos, sin = (table.unsqueeze(2) for table in position_embeddings)
        low, high = both.chunk(2, dim=-1)
        turned = (both * cos + torch.cat((-high, low), dim=-1) * sin).transpose(1, 2)
        queries, keys = turned.split([self._heads, self._groups], dim=1)
        keys, values = past_key_values.update(keys, values.transpose(1, 2), self._layer)
        output, weights = grouped_attention(
            self, queries, keys, values, attention_mask, scaling=self._scaling, **options
        )
        return self.o_proj(output.reshape(rows, positions, -1)), weights


def _plain(module: Any, *names: str) -> bool:
    """Say whether layers are linear ones that nobody has wrapped, such as with adapters."""
    return all(type(getattr(module, name)) is torch.nn.Linear for name in names)


def available(dtype: torch.dtype) -> bool:
    """Say whether oneDNN is there, multiplies packed weights, and computes in `dtype` on this processor."""
    if not (torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return False
    native: dict[torch.dtype, Callable[[], bool]] = {
        torch.float32: lambda: True,
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return dtype in native and native[dtype]()


def pack(model: torch.nn.Module) -> None:
    """Replace a model's linear layers by packed ones, and its attention and MLP by ones of fewer products.

    Adapters have to be in place before: layers that hold some keep their own products. The model computes as before,
    and can no longer be saved: packed weights are in no state_dict.
    """
    for name, child in model.named_children():
        if type(child).__name__ in _GATED and _plain(child, "gate_proj", "up_proj"):
            child = GatedMLP(child)
            setattr(model, name, child)
        if type(child).__name__ in _ATTENTION and _plain(child, "q_proj", "k_proj", "v_proj"):
            child = Attention(child)
            setattr(model, name, child)
        if type(child) is torch.nn.Linear:
            setattr(model, name, PackedLinear(child))
        else:
            pack(child)
