"""A base model of any size with random weights, as a Hugging Face directory that is written a layer at a time."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from nemo_reasoning.config.model import Architecture

_SPREAD = 0.02  # Llama's initializer_range


def write_base(folder: Path, shape: Architecture, *, tokenizer: Path, seed: int = 1234) -> Path:
    """Write a model in bfloat16, with the tokenizer of another.

    Args:
        folder: Where to; made if necessary.
        shape: Of the model.
        tokenizer: A Hugging Face directory; its vocabulary may be the smaller one.
        seed: Of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in tokenizer.iterdir():
        if file.name.startswith(("tokenizer", "special_tokens", "generation_config")):
            shutil.copyfile(file, folder / file.name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator, places = torch.Generator(device).manual_seed(seed), {}
    files = [*range(shape.num_layers), None]
    for number, layer in enumerate(files, 1):
        file = f"model-{number:05}-of-{len(files):05}.safetensors"
        sizes = dict(_outside(shape) if layer is None else _layer(shape, layer))
        tensors = {name: _random(size, generator) for name, size in sizes.items()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(_config(shape, tokenizer)), encoding="utf-8")
    return folder


def _random(size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if len(size) == 1:
        return torch.ones(size, dtype=torch.bfloat16)
    made = torch.empty(size, dtype=torch.bfloat16, device=generator.device)
    return made.normal_(0, _SPREAD, generator=generator).cpu()


def _layer(shape: Architecture, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner, size = shape.hidden_size, shape.ffn_hidden_size, shape.head_dim
    queries, keys = shape.num_attention_heads * size, shape.num_query_groups * size
    name = f"model.layers.{layer}"
    yield f"{name}.input_layernorm.weight", (hidden,)
    yield f"{name}.post_attention_layernorm.weight", (hidden,)
    yield f"{name}.self_attn.q_proj.weight", (queries, hidden)
    yield f"{name}.self_attn.k_proj.weight", (keys, hidden)
    yield f"{name}.self_attn.v_proj.weight", (keys, hidden)
    yield f"{name}.self_attn.o_proj.weight", (hidden, queries)
    yield f"{name}.mlp.gate_proj.weight", (inner, hidden)
    yield f"{name}.mlp.up_proj.weight", (inner, hidden)
    yield f"{name}.mlp.down_proj.weight", (hidden, inner)


def _outside(shape: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (shape.vocab_size, shape.hidden_size)
    yield "model.norm.weight", (shape.hidden_size,)
    if not shape.tie_embeddings:
        yield "lm_head.weight", (shape.vocab_size, shape.hidden_size)


def _config(shape: Architecture, tokenizer: Path) -> dict[str, object]:
    given = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "num_hidden_layers": shape.num_layers,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_hidden_size,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_query_groups,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_seq_length,
        "rope_theta": shape.rope_base,
        "rms_norm_eps": shape.norm_epsilon,
        "tie_word_embeddings": shape.tie_embeddings,
        "initializer_range": _SPREAD,
        "torch_dtype": "bfloat16",
        **{key: given[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
    }
