"""Main memory that proving an export takes."""

from nemo_reasoning.config.model import Architecture, PeftScheme
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.models.sizes import count_parameters, widened_bytes
from nemo_reasoning.training.memory.estimate import GIB

PROCESS_BYTES = 2 * GIB  # Python with torch and NeMo
_WIDTHS = {"float32": 4, "bfloat16": 2}


def verification_bytes(settings: SftSettings, shape: Architecture, *, combined: bool = False) -> int:
    """Return the main memory that comparing logits takes: of the trained and the exported model, one at a time.

    Args:
        settings: Of the training.
        shape: Of its model.
        combined: Whether several sets of weights are made one, which holds every weight in float32.
    """
    own = _WIDTHS[settings.parameter_dtype]
    width, trained = 4 if combined else own, count_parameters(shape) * own
    beside = trained if settings.peft.scheme is PeftScheme.none else 0
    return PROCESS_BYTES + widened_bytes(shape, width) + beside
