"""Sizes that follow from a model's shape alone."""

from math import gcd
from pathlib import Path

from nemo_reasoning.config.model import Architecture, PeftScheme, PeftSettings
from nemo_reasoning.models.families import family_of
from nemo_reasoning.models.hf_config import read_hf_config

NF4_BLOCK = 64  # weights that share a scale
NF4_SCALE_BLOCK = 256  # scales, one byte each, that share a float32


def architecture_from_hf(path: Path) -> Architecture:
    """Return the shape a Hugging Face directory describes in its config.json.

    Raises:
        ModelSourceError: There is no usable config.json, or it is of no family that NeMo can hold.
    """
    config = read_hf_config(path)
    return family_of(config, name=str(path)).architecture(config)


def linear_shapes(shape: Architecture) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of the four linears of a layer, under Megatron's names."""
    queries = shape.num_attention_heads * shape.head_dim
    keys_values = 2 * shape.num_query_groups * shape.head_dim
    return {
        "linear_qkv": (shape.hidden_size, queries + keys_values),
        "linear_proj": (queries, shape.hidden_size),
        "linear_fc1": (shape.hidden_size, 2 * shape.ffn_hidden_size),
        "linear_fc2": (shape.ffn_hidden_size, shape.hidden_size),
    }


def count_linear_weights(shape: Architecture) -> int:
    """Return the entries of the linears' matrices over all layers, without embedding and head."""
    return shape.num_layers * sum(inputs * outputs for inputs, outputs in linear_shapes(shape).values())


def small_tensors(shape: Architecture) -> list[int]:
    """Return the entries of each tensor of a layer beside its matrices: norms, then the bias, where it has one."""
    norms = [shape.hidden_size] * 2 + [shape.head_dim] * (2 * shape.qk_norm)
    return [*norms, *[linear_shapes(shape)["linear_qkv"][1]] * shape.qkv_bias]


def count_parameters(shape: Architecture) -> int:
    """Return the number of base parameters, embeddings included and tied ones counted once."""
    small = shape.num_layers * sum(small_tensors(shape)) + shape.hidden_size
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tie_embeddings else 2)
    return embeddings + count_linear_weights(shape) + small


def widened_bytes(shape: Architecture, width: int) -> int:
    """Return what a model takes that `compute_in_float32` computes with, its layers held at `width` bytes a weight."""
    layers = count_linear_weights(shape) + shape.num_layers * sum(small_tensors(shape))
    one_layer = layers // shape.num_layers if width < 4 else 0
    return 4 * (count_parameters(shape) - layers + one_layer) + width * layers


def count_lora_parameters(shape: Architecture, peft: PeftSettings) -> int:
    """Return the entries of the low-rank matrices: dim * (inputs + outputs) for each adapted linear."""
    linears = linear_shapes(shape)
    return shape.num_layers * sum(peft.dim * sum(linears[target]) for target in peft.target_modules)


def flops_adapter_weights(shape: Architecture, peft: PeftSettings) -> int | None:
    """Return what `models.flops` takes as `adapter_weights`; None where every weight is trained.

    DoRA's magnitudes multiply element by element, which is not counted, like norms; the norm of the
    adapted weight, worked out anew in every forward pass, is work of the machine, not of the model.
    """
    return None if peft.scheme is PeftScheme.none else count_lora_parameters(shape, peft)


def nf4_groups(linear: str, outputs: int) -> int:
    """Return how many times tensor-parallel ranks take turns in a linear's weight [outputs, inputs], row by row.

    A row-parallel rank holds some columns, a column-parallel one some rows, of gate and up some of each.
    """
    return {"linear_proj": outputs, "linear_fc2": outputs, "linear_fc1": 2}.get(linear, 1)


def nf4_blocks(run: int) -> tuple[int, int]:
    """Return (weights that share a scale, scales that share a float32) in a rank's share of a quantized matrix.

    Args:
        run: Weights of the share that lie one behind the other in the whole, whose blocks its ends may cut.
    """
    block = gcd(NF4_BLOCK, run)
    return block, gcd(NF4_BLOCK * NF4_SCALE_BLOCK, run) // block


def nf4_bytes(weights: int, *, ranks: int = 1, groups: int = 1) -> int:
    """Return the bytes of a matrix of `weights` entries in NF4 with double quantization, of one rank's share of it.

    Half a byte a weight, a byte for each 64 weights and four for each 256 of those (arXiv 2305.14314,
    section 3): 4.127 bits a weight, a little more where shares cut blocks.

    Args:
        weights: Of the whole matrix.
        ranks: That share it.
        groups: As `nf4_groups` says.
    """
    block, nested = (NF4_BLOCK, NF4_SCALE_BLOCK) if ranks == 1 else nf4_blocks(weights // ranks // groups)
    scales = -(-weights // ranks // block)
    return -(-weights // ranks // 2) + scales + 4 * -(-scales // nested)
