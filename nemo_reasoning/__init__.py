"""Turn a Llama-family chat model into a reasoning model with a thinking switch, using NVIDIA NeMo.

Importing this package is instant: torch and NeMo load only when a name that needs them is used. The names in
`__all__` are what other programs may rely on; docs/api.md shows each at work.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nemo_reasoning.answers.equality import answers_equal
    from nemo_reasoning.cli import compose_settings
    from nemo_reasoning.errors import NemoReasoningError
    from nemo_reasoning.export.from_run import export_run
    from nemo_reasoning.inference.checkpoints import resolve_checkpoint
    from nemo_reasoning.inference.load import load_engine
    from nemo_reasoning.inference.request import GenerationRequest
    from nemo_reasoning.pipeline import fine_tune
    from nemo_reasoning.reasoning.messages import Message
    from nemo_reasoning.reasoning.switch import find_switch
    from nemo_reasoning.training.memory.planner import fit_to_memory
    from nemo_reasoning.training.memory.tables import estimate_batch_size
    from nemo_reasoning.training.run_dir import Run

__version__ = "0.1.0"
__all__ = [
    "GenerationRequest",
    "Message",
    "NemoReasoningError",
    "Run",
    "answers_equal",
    "compose_settings",
    "estimate_batch_size",
    "export_run",
    "find_switch",
    "fine_tune",
    "fit_to_memory",
    "load_engine",
    "resolve_checkpoint",
]
_HOMES = {
    "GenerationRequest": "inference.request",
    "Message": "reasoning.messages",
    "NemoReasoningError": "errors",
    "Run": "training.run_dir",
    "answers_equal": "answers.equality",
    "compose_settings": "cli",
    "estimate_batch_size": "training.memory.tables",
    "export_run": "export.from_run",
    "find_switch": "reasoning.switch",
    "fine_tune": "pipeline",
    "fit_to_memory": "training.memory.planner",
    "load_engine": "inference.load",
    "resolve_checkpoint": "inference.checkpoints",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used.

    Raises:
        AttributeError: There is no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    """Return the public names, also those that are not imported yet."""
    return [*__all__, "__version__"]
