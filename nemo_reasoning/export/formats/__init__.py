"""Which formats hold what was trained."""

from collections.abc import Sequence

from nemo_reasoning.config.model import PeftScheme
from nemo_reasoning.errors import ExportError

FORMATS = ("hf_peft", "nemo", "merged")
_WITHOUT_ADAPTER = "peft=none trained every weight, so there is no adapter"
_REFUSED = {
    PeftScheme.dora: {"nemo": "NeMo-1 archives and NIM 1.x hold no DoRA adapters"},
    PeftScheme.none: {"hf_peft": _WITHOUT_ADAPTER, "nemo": _WITHOUT_ADAPTER},
}


def formats_of(scheme: PeftScheme) -> list[str]:
    """Return the formats that hold what a scheme trains."""
    return [name for name in FORMATS if name not in _REFUSED.get(scheme, {})]


def check_formats(formats: Sequence[str], scheme: PeftScheme) -> None:
    """Refuse formats that do not exist, or do not hold what a scheme trains.

    Raises:
        ExportError: Names the format and those that do.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise ExportError(f"formats={unknown or '[]'}: choose from {', '.join(FORMATS)}")
    for name in formats:
        if reason := _REFUSED.get(scheme, {}).get(name):
            raise ExportError(f"formats=[{name}]: {reason}; export formats=[{','.join(formats_of(scheme))}]")
