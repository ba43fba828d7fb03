"""From settings to a running engine."""

from pathlib import Path
from typing import Any

from nemo_reasoning.config.inference import EngineKind, EngineSettings
from nemo_reasoning.data.chat import load_template
from nemo_reasoning.errors import EngineError
from nemo_reasoning.export.tokenizer import strip_generation
from nemo_reasoning.inference.checkpoints import ServedModels
from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.inference.vllm.engine import VllmEngine

DTYPES = ("auto", "bfloat16", "float32")


def load_engine(settings: EngineSettings, lineup: ServedModels, *, template: str | None) -> HFEngine | VllmEngine:
    """Load the models.

    Args:
        settings: Of conf/engine.
        lineup: What to load.
        template: Name or file of a chat template in place of the tokenizer's own.

    Raises:
        EngineError: A model cannot be loaded, or a setting is out of range.
        TemplateError: There is no such template.
    """
    if settings.dtype not in DTYPES:
        raise EngineError(f"engine.dtype={settings.dtype}; choose from {', '.join(DTYPES)}")
    text = None if template is None else strip_generation(load_template(template))
    shared: dict[str, Any] = {
        "adapters": lineup.adapters,
        "dtype": settings.dtype,
        "batch_size": settings.batch_size,
        "context": settings.context,
        "cache_gb": settings.cache_gb,
        "chat_template": text,
    }
    if settings.kind is EngineKind.hf:
        return HFEngine(lineup.model, lineup.merged, device=settings.device, **shared)
    if settings.vllm_python is None:
        raise EngineError("engine.vllm_python is null; name the interpreter of the environment that holds vLLM")
    python = Path(settings.vllm_python)
    return VllmEngine(lineup.model, lineup.merged, python=python, args=settings.vllm_args, **shared)
