"""Settings of recipes/export.py."""

from dataclasses import dataclass

from nemo_reasoning.config import checks

EXPORT_DTYPES = ("float32", "bfloat16", "float16")


@dataclass
class ExportSettings:
    """conf/export.yaml."""

    checkpoint: str
    formats: list[str] | None
    output_dir: str | None
    dtype: str
    merge_onto: str | None
    verify: bool
    tokenizer_python: str | None


def validate(settings: ExportSettings) -> None:
    """Refuse what can be seen to be wrong before the run is opened.

    Raises:
        ConfigError: Lists every problem found, each with its remedy.
    """
    problems = []
    if settings.dtype not in EXPORT_DTYPES:
        problems.append(f"dtype={settings.dtype}: choose one of {', '.join(EXPORT_DTYPES)}")
    checks.refuse(problems)
