"""Families of models: one file each."""

from collections.abc import Mapping
from typing import Any

from nemo_reasoning.errors import ModelSourceError
from nemo_reasoning.models.families.base import ModelFamily
from nemo_reasoning.models.families.llama import Llama
from nemo_reasoning.models.hf_config import value_problems

FAMILIES: dict[str, ModelFamily] = {family.model_type: family for family in (Llama(),)}
DEFAULT = FAMILIES["llama"]  # of the architectures in conf/model


def problems_of(config: Mapping[str, Any]) -> list[str]:
    """Return everything that keeps a model from being trained here, by its config.json."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        known = ", ".join(f"{family.title} ({name})" for name, family in FAMILIES.items())
        return [f"is a {kind!r} model; this package trains {known}"]
    return value_problems(config) or FAMILIES[kind].problems(config)


def family_of(config: Mapping[str, Any], *, name: str) -> ModelFamily:
    """Return the family of a model.

    Args:
        config: Its config.json, parsed.
        name: What the user calls it.

    Raises:
        ModelSourceError: It is of no family, or NeMo cannot hold it; says everything that is in the way.
    """
    if problems := problems_of(config):
        raise ModelSourceError("\n".join(f"model.source={name} {problem}" for problem in problems))
    return FAMILIES[config["model_type"]]
