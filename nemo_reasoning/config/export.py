"""Settings of recipes/export.py."""

from dataclasses import dataclass
from math import isfinite

from nemo_reasoning.config import checks
from nemo_reasoning.config.model import Architecture, PeftScheme, PeftSettings

EXPORT_DTYPES = ("float32", "bfloat16", "float16")
EXPORT_FORMATS = ("hf_peft", "nemo", "merged", "gguf")
GGUF_TYPES = ("f16", "q8_0", "q4_k_m")
GGUF_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}  # by family
_WITHOUT_ADAPTER = "peft=none trains every weight, so there is no adapter"


def refused_formats(peft: PeftSettings, shape: Architecture) -> dict[str, str]:
    """Return the formats that cannot hold what such a training makes of such a base, each with its reason."""
    refused = {}
    if peft.scheme is PeftScheme.none:
        refused = dict.fromkeys(("hf_peft", "nemo"), _WITHOUT_ADAPTER)
    elif peft.scheme is PeftScheme.dora:
        refused["nemo"] = "NeMo-1 archives and NIM 1.x hold no DoRA adapters"
    elif shape.head_dim * shape.num_attention_heads != shape.hidden_size:
        refused["nemo"] = (
            f"the base model has heads of {shape.head_dim}, but readers of .nemo archives take hidden_size / heads = "
            f"{shape.hidden_size}/{shape.num_attention_heads}"
        )
    if shape.family not in GGUF_ARCHITECTURES:
        known = ", ".join(GGUF_ARCHITECTURES)
        refused["gguf"] = f"llama.cpp's name and layout of {shape.family} models are not known here, only of {known}"
    return refused


@dataclass
class ExportSettings:
    """conf/export.yaml."""

    checkpoint: str
    formats: list[str] | None
    output_dir: str | None
    average: int
    adapters: dict[str, float] | None
    dtype: str
    gguf: list[str]
    merge_onto: str | None
    verify: bool
    tokenizer_python: str | None


def validate(settings: ExportSettings) -> None:
    """Refuse what can be seen to be wrong before the run is opened.

    Raises:
        ConfigError: Lists every problem found, each with its remedy.
    """
    unknown = sorted(set(settings.formats or ()) - set(EXPORT_FORMATS))
    problems = [f"formats={unknown}: choose from {', '.join(EXPORT_FORMATS)}"] if unknown else []
    if settings.dtype not in EXPORT_DTYPES:
        problems.append(f"dtype={settings.dtype}: choose one of {', '.join(EXPORT_DTYPES)}")
    if not settings.gguf or (odd := sorted(set(settings.gguf) - set(GGUF_TYPES))):
        problems.append(f"gguf={odd if settings.gguf else []}: choose from {', '.join(GGUF_TYPES)}")
    problems += checks.positive({"average": settings.average})
    problems += [
        f"adapters.{name}={weight}: give a finite weight"
        for name, weight in (settings.adapters or {}).items()
        if not isfinite(weight)
    ]
    checks.refuse(problems)
