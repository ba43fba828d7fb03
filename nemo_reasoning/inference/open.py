"""From settings to a running engine."""

from nemo_reasoning.config_inference import EngineSettings
from nemo_reasoning.data.chat import load_template
from nemo_reasoning.errors import EngineError
from nemo_reasoning.export.tokenizer import strip_generation
from nemo_reasoning.inference.hf import HFEngine
from nemo_reasoning.inference.sources import Lineup

DTYPES = ("auto", "bfloat16", "float32")


def open_engine(settings: EngineSettings, lineup: Lineup, *, template: str | None) -> HFEngine:
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
    return HFEngine(
        lineup.model,
        lineup.merged,
        adapters=lineup.adapters,
        dtype=settings.dtype,  # type: ignore[arg-type]  # one of DTYPES
        device=settings.device,
        batch_size=settings.batch_size,
        context=settings.context,
        cache_gb=settings.cache_gb,
        chat_template=None if template is None else strip_generation(load_template(template)),
    )
