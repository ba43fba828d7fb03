"""What a family of models must tell: how its config.json reads, and which classes of NeMo hold it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from nemo_reasoning.config.model import Architecture, RopeScaling
from nemo_reasoning.models.hf_config import rope_of

_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


class NemoClasses(NamedTuple):
    """NeMo's classes of a family."""

    config: type
    model: type
    importer: type


class ModelFamily(ABC):
    """A family with Llama's layers: RMSNorm, rotary embedding, grouped queries, SwiGLU.

    NeMo and torch are loaded only by the methods that return their objects.

    Attributes:
        model_type: How config.json calls it; also `architecture.family` of conf/model.
        title: Its name for people.
        qkv_bias: Whether queries, keys and values have a bias.
        qk_norm: Whether the heads of queries and keys are normalized.
        absent: What transformers takes where config.json does not say it; None follows from the sizes.
        hf_modules: Modules of a Hugging Face layer behind each of Megatron's linears, in the order of their rows.
        hf_norms: Norms of a Hugging Face layer behind Megatron's, by Megatron's names of their weights.
    """

    model_type: ClassVar[str]
    title: ClassVar[str]
    qkv_bias: ClassVar[bool] = False
    qk_norm: ClassVar[bool] = False
    absent: ClassVar[dict[str, Any]] = {
        "num_key_value_heads": None,
        "head_dim": None,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
    }
    hf_modules: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "linear_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "linear_proj": ("self_attn.o_proj",),
        "linear_fc1": ("mlp.gate_proj", "mlp.up_proj"),
        "linear_fc2": ("mlp.down_proj",),
    }
    hf_norms: ClassVar[Mapping[str, str]] = {
        "self_attention.linear_qkv.layer_norm_weight": "input_layernorm",
        "self_attention.q_layernorm.weight": "self_attn.q_norm",
        "self_attention.k_layernorm.weight": "self_attn.k_norm",
        "mlp.linear_fc1.layer_norm_weight": "post_attention_layernorm",
    }

    @abstractmethod
    def nemo_classes(self) -> NemoClasses:
        """Return NeMo's configuration, model and importer."""

    def problems(self, config: Mapping[str, Any]) -> list[str]:
        """Return everything in a config.json that NeMo cannot hold, or would hold as something else."""
        absent = [name for name in _SIZES if config.get(name) is None]
        problems = [f"does not say {name} in its config.json; download it again" for name in absent]
        problems = problems or self._size_problems(config)
        return [*problems, *_layer_problems(config), *self.own_problems(config), *self._rope_problems(config)]

    def _size_problems(self, config: Mapping[str, Any]) -> list[str]:
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        groups = self._get(config, "num_key_value_heads") or heads
        problems = []
        if heads % groups:
            problems.append(f"has {heads} attention heads for {groups} key-value heads, which does not divide them")
        if self._get(config, "head_dim") is None and hidden % heads:
            problems.append(f"has hidden_size={hidden}, which {heads} attention heads do not divide, and no head_dim")
        return problems

    def own_problems(self, config: Mapping[str, Any]) -> list[str]:
        """Return what only this family's config.json can say, and NeMo's model would not do."""
        return []

    def _rope_problems(self, config: Mapping[str, Any]) -> list[str]:
        try:
            scaling = rope_of(config)[1]
        except ValueError as error:
            return [f"{error}; keep the one that its authors give"]
        return [] if scaling is None else self.scaling_problems(scaling)

    def scaling_problems(self, scaling: Mapping[str, Any]) -> list[str]:
        """Return why NeMo's model of the family cannot hold a scaling of the rotary embedding."""
        return [
            f"has rope_scaling={dict(scaling)}, which NeMo's importer would ignore; remove it from config.json to "
            "train within the length the model was made for, or choose a model without"
        ]

    def rope_scaling(self, scaling: Mapping[str, Any]) -> RopeScaling:
        """Return a scaling without problems."""
        raise NotImplementedError

    def _get(self, config: Mapping[str, Any], name: str) -> Any:
        value = config.get(name)
        return self.absent[name] if value is None else value

    def architecture(self, config: Mapping[str, Any]) -> Architecture:
        """Return the shape that a config.json without problems describes."""
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        rope_base, scaling = rope_of(config)
        return Architecture(
            family=self.model_type,
            num_layers=config["num_hidden_layers"],
            hidden_size=hidden,
            ffn_hidden_size=config["intermediate_size"],
            num_attention_heads=heads,
            num_query_groups=self._get(config, "num_key_value_heads") or heads,
            head_dim=self._get(config, "head_dim") or hidden // heads,
            qkv_bias=self.qkv_bias,
            qk_norm=self.qk_norm,
            vocab_size=config["vocab_size"],
            max_seq_length=self._get(config, "max_position_embeddings"),
            tie_embeddings=bool(config.get("tie_word_embeddings")),
            rope_base=rope_base,
            rope_scaling=self.rope_scaling(scaling) if scaling else None,
            norm_epsilon=self._get(config, "rms_norm_eps"),
        )

    def nemo_fields(self, shape: Architecture) -> dict[str, Any]:
        """Return the fields of NeMo's configuration that a shape decides, and the kernels that all families share."""
        return {
            "num_layers": shape.num_layers,
            "hidden_size": shape.hidden_size,
            "ffn_hidden_size": shape.ffn_hidden_size,
            "num_attention_heads": shape.num_attention_heads,
            "num_query_groups": shape.num_query_groups,
            "kv_channels": shape.head_dim,
            "add_qkv_bias": shape.qkv_bias,
            "qk_layernorm": shape.qk_norm,
            "vocab_size": shape.vocab_size,
            "seq_length": shape.max_seq_length,
            "layernorm_epsilon": shape.norm_epsilon,
            "rotary_base": int(base) if (base := shape.rope_base).is_integer() else base,
            "share_embeddings_and_output_weights": shape.tie_embeddings,
            **dict.fromkeys(_KERNELS, True),
        }

    def nemo_config(self, shape: Architecture) -> Any:
        """Return NeMo's configuration of a model of a shape."""
        return self.nemo_classes().config(**self.nemo_fields(shape))

    def imported_config(self, importer: Any, shape: Architecture) -> Any:
        """Return NeMo's configuration of an imported model.

        It is that of the shape: NeMo's importers leave out head sizes (Qwen3), tied embeddings (Qwen2, Mistral) or the
        vocabulary (Mistral), and some need a generation_config.json.
        """
        return self.nemo_config(shape)

    def nemo_model(self, config: Any, *, tokenizer: Any) -> Any:
        """Return NeMo's model of a configuration, without weights yet."""
        return self.nemo_classes().model(config, tokenizer=tokenizer)

    def importer(self, path: Path) -> Any:
        """Return NeMo's importer of a Hugging Face directory."""
        return self.nemo_classes().importer(str(path))


# NeMo turns these on for Llama alone; they compute the same.
_KERNELS = (
    *("bias_activation_fusion", "bias_dropout_fusion", "masked_softmax_fusion"),
    *("persist_layer_norm", "apply_rope_fusion"),
)


def _as_list(value: Any) -> list[str]:
    return [str(entry) for entry in value] if isinstance(value, list | tuple) else [] if value is None else [str(value)]


def _layer_problems(config: Mapping[str, Any]) -> list[str]:
    """Return what is unlike Llama's layers, whatever the family."""
    problems = []
    if biases := [name for name in ("attention_bias", "mlp_bias") if config.get(name)]:
        named = " and ".join(biases)
        problems.append(f"has bias terms, which NeMo's importer would drop; choose a model without ({named} not true)")
    if config.get("hidden_act") not in (None, "silu"):
        problems.append(f"has hidden_act={config['hidden_act']}; NeMo's importer knows silu only")
    if config.get("quantization_config"):
        problems.append("has quantized weights; choose the original with 16 or 32 bits a weight")
    if config.get("auto_map"):
        problems.append(
            f"brings code of its own (auto_map: {', '.join(sorted(config['auto_map']))}), which would not run: it "
            "would be trained as a plain model of its family; choose another, or remove auto_map if it is one"
        )
    problems += [
        f"has {name}={config[name]}: layers with experts are not trained here; choose a dense model"
        for name in _EXPERTS
        if config.get(name)
    ]
    classes = _as_list(config.get("architectures"))
    if classes and not any(name.endswith("ForCausalLM") for name in classes):
        problems.append(f"is a {', '.join(classes)}, no causal language model; choose a chat model")
    return problems + _window_problems(config)


def _window_problems(config: Mapping[str, Any]) -> list[str]:
    """Return where a model attends within a window, which the torch layers and the engines here do not."""
    advice = "attention here sees every earlier token; choose a model without a window"
    if kinds := sorted(set(_as_list(config.get("layer_types"))) - {"full_attention"}):
        return [f"has layer_types with {', '.join(kinds)}; {advice}"]
    if config.get("use_sliding_window"):
        return [f"has use_sliding_window=true; {advice}, or set it to false in config.json if no layer needs it"]
    return []
