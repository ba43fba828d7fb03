"""A transformer layer made of torch operations that carries Transformer Engine's parameter names.

With it NeMo's Hugging Face importer and exporters, LoRA and distributed checkpoints work unchanged
without Transformer Engine, on CPU and CUDA, and checkpoints move between the two.

Shapes: s sequence, b batch, h heads, g key-value groups, d head size, t packed tokens.
"""

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.backends import LocalSpecProvider
from megatron.core.models.gpt.gpt_layer_specs import get_mlp_module_spec_for_backend
from megatron.core.tensor_parallel.layers import ColumnParallelLinear
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch.nn.utils.rnn import pad_sequence

from nemo_reasoning.backend.attention import Samples, blocked_attention
from nemo_reasoning.backend.kernels import rms_norm
from nemo_reasoning.backend.varlen import varlen_attention
from nemo_reasoning.errors import BackendError


class LayerNormColumnParallelLinear(ColumnParallelLinear):  # type: ignore[misc]
    """RMSNorm followed by a column-parallel linear, as `TELayerNormColumnParallelLinear` names it.

    With `sequence_parallel` a rank norms its share of the positions, and Megatron sums the gains' gradients over ranks.

    Attributes:
        layer_norm_weight: Gain of the norm, [input_size], in the dtype of the parameters.
        return_layernorm_output: When True, `forward` also returns the normalised input, which is
            what LoRA adapts.
    """

    def __init__(self, input_size: int, output_size: int, *, config: Any, **kwargs: Any) -> None:
        if config.normalization != "RMSNorm":
            raise BackendError(f"normalization={config.normalization!r}: the torch layers support RMSNorm only")
        super().__init__(input_size, output_size, config=config, **kwargs)
        self.layer_norm_weight = torch.nn.Parameter(torch.ones(input_size, dtype=config.params_dtype))
        self.layer_norm_weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
        self.eps = config.layernorm_epsilon
        self.return_layernorm_output = False

    def forward(self, input_: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[Any, torch.Tensor | None]:
        """Return (output [s, b, output_size / tp], bias), or ((output, normalised input), bias)."""
        normalised = self.normalise(input_)
        output, bias = super().forward(normalised, *args, **kwargs)
        return ((output, normalised) if self.return_layernorm_output else output), bias

    def normalise(self, input_: torch.Tensor) -> torch.Tensor:
        """Return the input [..., input_size] of the linear."""
        return rms_norm(input_, self.layer_norm_weight.to(input_.dtype), self.eps)

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple[Any, ...] = (), metadata: Any = None
    ) -> dict[str, Any]:
        """Return the shards: weight and bias split over rows, the norm replicated."""
        state = self.state_dict(prefix="", keep_vars=True)
        shards: dict[str, Any] = make_sharded_tensors_for_checkpoint(
            state, prefix, {"weight": 0, "bias": 0}, sharded_offsets
        )
        return shards


class TorchNorm(torch.nn.RMSNorm):
    """A norm that stands alone, in the dtype of the parameters, as Transformer Engine makes it.

    It is the norm behind the last layer, and that of each head of queries and keys where the model has those.
    """

    eps: float

    def __init__(self, config: Any, hidden_size: int, eps: float) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the norm of x [..., hidden_size], in its dtype."""
        return rms_norm(x, self.weight.to(x.dtype), self.eps)

    def get_extra_state(self) -> None:
        """Return nothing, under the key that Transformer Engine's norm asks of a checkpoint."""

    def set_extra_state(self, state: Any) -> None:
        """Ignore what Transformer Engine's norm saved: scales of FP8, which there are none of here."""


class TorchAttention(MegatronModule):  # type: ignore[misc]
    """Causal grouped-query attention in which no token attends to another sample.

    A GPU's half precision goes through a flash kernel for varying lengths, a CPU's bfloat16 through
    `blocked_attention`; the rest, float32 above all, is padded for `scaled_dot_product_attention`.
    """

    def __init__(
        self,
        config: Any,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: Any = None,
    ) -> None:
        if config.context_parallel_size > 1:
            raise BackendError(
                f"context_parallel_size={config.context_parallel_size} needs Transformer Engine; set it to 1"
            )
        super().__init__(config=config)
        self.softmax_scale = softmax_scale
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: torch.Tensor | None = None,
        packed_seq_params: Any = None,
    ) -> torch.Tensor:
        """Attend.

        Args:
            query: [s, b, h, d], or [t, h, d] when packed.
            key: [s, b, g, d], or [t, g, d] when packed.
            value: Like `key`.
            attention_mask: Must be None: rows are padded on the right, which causality hides.
            attn_mask_type: Ignored; attention is causal.
            attention_bias: Must be None.
            packed_seq_params: Megatron's `PackedSeqParams` with `cu_seqlens_q` [samples + 1], int32.

        Returns:
            [s, b, h * d], or [t, h * d] when packed.

        Raises:
            BackendError: A mask or bias was given.
        """
        if attention_mask is not None or attention_bias is not None:
            raise BackendError("the torch attention is causal and takes neither attention_mask nor attention_bias")
        packed = packed_seq_params is not None
        if not packed:
            batch = query.shape[1]
            query, key, value = (x.transpose(0, 1).flatten(0, 1) for x in (query, key, value))
            samples = Samples([query.shape[0] // batch] * batch)
        else:
            samples = _samples(packed_seq_params, positions=query.shape[0])
        mixed = self._attend(query, key, value, samples).flatten(1)
        return mixed if packed else mixed.view(batch, -1, mixed.shape[1]).transpose(0, 1)

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, samples: Samples) -> torch.Tensor:
        """Return causal attention within each sample, [t, h, d], of [t, h, d] over [t, g, d]."""
        dropout = self.dropout if self.training else 0.0
        scale = query.shape[-1] ** -0.5 if self.softmax_scale is None else self.softmax_scale
        if query.device.type == "cpu" and query.dtype == torch.bfloat16 and not dropout:
            return blocked_attention(query, key, value, samples=samples, scale=scale)
        half = query.dtype in (torch.bfloat16, torch.float16)
        if half and query.device.type != "cpu" and (kernel := varlen_attention(dropout=dropout)) is not None:
            bounds = samples.bounds(query.device)
            return kernel(query, key, value, bounds=bounds, longest=max(samples.lengths), scale=scale)
        split = [torch.split(x, samples.lengths) for x in (query, key, value)]
        attended: dict[int, torch.Tensor] = {}
        for group in samples.groups:
            q, k, v = (pad_sequence([x[sample] for sample in group], batch_first=True).transpose(1, 2) for x in split)
            mixed = F.scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
            ).transpose(1, 2)
            attended.update((sample, row[: samples.lengths[sample]]) for sample, row in zip(group, mixed, strict=True))
        return torch.cat([attended[sample] for sample in sorted(attended)])


def _samples(packed: Any, *, positions: int) -> Samples:
    """Return where the samples lie; all layers of a forward pass share it, so it is kept with the bounds."""
    if not hasattr(packed, "samples"):
        lengths = packed.cu_seqlens_q.diff().tolist()
        packed.samples = Samples([*lengths, positions - sum(lengths)])  # padding behind the last sample
    found: Samples = packed.samples
    return found


class TorchSpecProvider(LocalSpecProvider):  # type: ignore[misc]
    """Megatron's local layers, with the norm fused into the linear, and torch's attention or Transformer Engine's."""

    def __init__(self, *, te_attention: bool = False) -> None:
        """Choose the attention."""
        self.te_attention = te_attention

    def fuse_layernorm_and_linear(self) -> bool:
        """Return True: parameter names then equal Transformer Engine's."""
        return True

    def column_parallel_layer_norm_linear(self) -> type:
        """Return the fused norm and linear."""
        return LayerNormColumnParallelLinear

    def core_attention(self) -> type:
        """Return the attention."""
        if self.te_attention:
            from megatron.core.extensions.transformer_engine import TEDotProductAttention

            chosen: type = TEDotProductAttention
            return chosen
        return TorchAttention


def torch_layer_spec(config: Any, *, te_attention: bool = False) -> ModuleSpec:
    """Return the layer specification for a dense model.

    Args:
        config: Megatron's configuration of the model.
        te_attention: Whether attention is Transformer Engine's, which has no weights.

    Raises:
        BackendError: The model has experts.
    """
    if config.num_moe_experts:
        raise BackendError("the torch layers cover dense models; experts need Transformer Engine")
    backend = TorchSpecProvider(te_attention=te_attention)
    head_norm = TorchNorm if config.qk_layernorm else IdentityOp
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            self_attention=ModuleSpec(
                module=SelfAttention,
                params={"attn_mask_type": AttnMaskType.causal},
                submodules=SelfAttentionSubmodules(
                    linear_qkv=backend.column_parallel_layer_norm_linear(),
                    core_attention=backend.core_attention(),
                    linear_proj=backend.row_parallel_linear(),
                    q_layernorm=head_norm,
                    k_layernorm=head_norm,
                ),
            ),
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=IdentityOp,
            mlp=get_mlp_module_spec_for_backend(backend=backend),
            mlp_bda=get_bias_dropout_add,
        ),
    )
