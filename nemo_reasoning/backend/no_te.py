"""What NeMo takes for granted about Transformer Engine, answered by the torch layers."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from nemo_reasoning.backend.patching import Patch


def _layer_spec() -> Sequence[tuple[Any, str, Any]]:
    from nemo.collections.llm.gpt.model import base

    from nemo_reasoning.backend.torch_layers import torch_layer_spec

    # NeMo's default_layer_spec looks both names up when it is called: what a checkpoint records
    # is that function, so the checkpoint loads where this package is not installed.
    return [(base, "HAVE_TE", False), (base, "local_layer_spec", torch_layer_spec)]


def _final_norm() -> Sequence[tuple[Any, str, Any]]:
    from megatron.core.transformer import transformer_block

    from nemo_reasoning.backend.torch_layers import TorchNorm

    return [(transformer_block, "LayerNormImpl", TorchNorm)]


def _causal_batches() -> Sequence[tuple[Any, str, Any]]:
    from nemo.collections.llm.gpt.model.base import GPTModel

    step = GPTModel.forward_step

    def without_mask(self: Any, batch: dict[str, Any]) -> Any:
        packed = {"attention_mask": None} if "cu_seqlens" in batch else {}  # a placeholder, there
        return step(self, {"attention_mask": None, **batch, **packed})

    return [(GPTModel, "forward_step", without_mask)]


def _adapters() -> Sequence[tuple[Any, str, Any]]:
    from nemo.collections.llm.peft import dora, lora, utils

    from nemo_reasoning.backend.fused_lora import FusedLoRALinear
    from nemo_reasoning.backend.torch_layers import LayerNormColumnParallelLinear

    describe = utils.get_adapter_attributes_from_linear

    def after_norm(module: Any) -> Any:
        if isinstance(module, LayerNormColumnParallelLinear):
            module.return_layernorm_output = True
        return describe(module)

    return [
        (utils, "HAVE_TE", False),
        (lora, "get_adapter_attributes_from_linear", after_norm),
        (dora, "get_adapter_attributes_from_linear", after_norm),
        (lora, "te", SimpleNamespace(Linear=None)),
        (lora, "LoRALinear", FusedLoRALinear),
    ]


def _extra_state() -> Sequence[tuple[Any, str, Any]]:
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.dict_utils import dict_list_map_outplace, extract_matching_values, merge
    from megatron.core.dist_checkpointing.mapping import ShardedObject
    from megatron.core.dist_checkpointing.serialization import load_sharded_metadata

    load = dist_checkpointing.load

    def without_absent_extra_state(sharded_state_dict: Any, checkpoint_dir: str, *args: Any, **kwargs: Any) -> Any:
        written = load_sharded_metadata(checkpoint_dir)

        def is_absent(value: Any) -> bool:
            extra = isinstance(value, ShardedObject) and value.key.endswith("_extra_state")
            return extra and value.unique_key not in written

        absent, asked = extract_matching_values(sharded_state_dict, is_absent)
        return merge(load(asked, checkpoint_dir, *args, **kwargs), dict_list_map_outplace(lambda _: None, absent))

    return [(dist_checkpointing, "load", without_absent_extra_state)]


def _rotary() -> Sequence[tuple[Any, str, Any]]:
    from megatron.core.transformer import attention

    from nemo_reasoning.backend.kernels import apply_rotary_pos_emb

    return [(attention, "apply_rotary_pos_emb", apply_rotary_pos_emb)]


def _fused_kernels() -> Sequence[tuple[Any, str, Any]]:
    from megatron.core.transformer import mlp
    from nemo.collections.llm.gpt.model.base import GPTConfig

    from nemo_reasoning.backend.kernels import swiglu

    finish = GPTConfig.__post_init__

    def without_te_kernels(self: Any) -> None:
        self.apply_rope_fusion = False
        self.masked_softmax_fusion = False
        self.persist_layer_norm = False
        self.gradient_accumulation_fusion = False
        finish(self)

    return [(GPTConfig, "__post_init__", without_te_kernels), (mlp, "bias_swiglu_impl", swiglu)]


NO_TE = (
    Patch("layer-spec", "nemo.collections.llm.gpt.model.base.default_layer_spec", _layer_spec),
    Patch("final-norm", "megatron.core's transformer_block makes the last norm float32 without TE", _final_norm),
    Patch(
        "causal-batches",
        "nemo.collections.llm.gpt.model.base.gpt_forward_step asserts TE without a mask",
        _causal_batches,
    ),
    Patch("adapters", "nemo.collections.llm.peft fuses adapters and adapts the norm's output with TE only", _adapters),
    Patch(
        "extra-state",
        "megatron's dist_checkpointing.load fails where a checkpoint lacks the final norm's extra state, which the "
        "torch layers did not write before 0.2",
        _extra_state,
    ),
    Patch("rotary", "megatron.core.transformer.attention's rotary embedding without TE", _rotary),
    Patch("fused-kernels", "kernels of TE and apex that nemo's LlamaConfig turns on", _fused_kernels),
)
