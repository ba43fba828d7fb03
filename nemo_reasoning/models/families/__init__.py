"""Families of models: one file each."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

from nemo_reasoning.config.loading import nearest
from nemo_reasoning.errors import ConfigError, ModelSourceError
from nemo_reasoning.models.families.base import ModelFamily
from nemo_reasoning.models.hf_config import value_problems


def _families() -> Iterator[ModelFamily]:
    """Yield the family that each file of this folder defines."""
    for entry in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{entry.name}")
        for found in vars(module).values():
            own = isinstance(found, type) and found.__module__ == module.__name__
            if own and issubclass(found, ModelFamily) and not inspect.isabstract(found):
                yield found()


FAMILIES: Mapping[str, ModelFamily] = {family.model_type: family for family in _families()}


def family_named(name: str) -> ModelFamily:
    """Return the family that `architecture.family` names.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in FAMILIES:
        near = nearest(name, FAMILIES) or f"; choose one of {', '.join(FAMILIES)}"
        raise ConfigError(f"model.architecture.family={name}: there is no such family{near}")
    return FAMILIES[name]


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
