"""What a base quantised to NF4 takes, from the model's shape alone."""

from nemo_reasoning.config.model import Architecture, PeftScheme, PeftSettings
from nemo_reasoning.models.sizes import linear_shapes

BLOCK = 64  # weights that share a scale
SCALE_BLOCK = 256  # scales, one byte each, that share a float32


def nf4_bytes(weights: int) -> int:
    """Return the bytes of a matrix of `weights` entries in NF4 with double quantisation.

    Half a byte a weight, a byte for each 64 weights and four for each 256 of those (arXiv 2305.14314,
    section 3): 4.127 bits a weight.
    """
    scales = -(-weights // BLOCK)
    return -(-weights // 2) + scales + 4 * -(-scales // SCALE_BLOCK)


def base_bytes(shape: Architecture, peft: PeftSettings, *, parameters: int, bytes_per_parameter: int) -> int:
    """Return the bytes of the frozen base weights over all devices.

    Args:
        shape: The base model.
        peft: How it is adapted; QLoRA quantises `peft.target_modules`.
        parameters: Of the base model.
        bytes_per_parameter: Of weights that are not quantised.
    """
    if peft.scheme is not PeftScheme.qlora:
        return parameters * bytes_per_parameter
    linears = linear_shapes(shape)
    matrices = [linears[target][0] * linears[target][1] for target in peft.target_modules]
    rest = parameters - shape.num_layers * sum(matrices)
    return rest * bytes_per_parameter + shape.num_layers * sum(nf4_bytes(weights) for weights in matrices)
