"""Compose conf/ as the recipes do, without running one."""

from copy import deepcopy
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, flag_override

from nemo_reasoning.config import CONF_DIR, load_settings
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.hardware import register_resolvers
from nemo_reasoning.training.memory.planner import fit_to_memory

_PARSER = OverridesParser.create()


def composed(*overrides: str, root: str = "sft_lora", hydra: bool = False) -> DictConfig:
    """Return the configuration of a recipe; with `hydra` it holds Hydra's own settings too.

    What is chosen is composed once; values are set as Hydra sets them, in what was composed.
    """
    values = tuple(text for text in overrides if _sets_a_value(text))
    chosen = tuple(text for text in overrides if text not in values)
    config = deepcopy(_composed(chosen, root, hydra))
    with flag_override(config, ["struct"], True):
        ConfigLoaderImpl._apply_overrides_to_config(_PARSER.parse_overrides(list(values)), config)
    return config


@cache
def _composed(chosen: tuple[str, ...], root: str, hydra: bool) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        return compose(root, overrides=list(chosen), return_hydra_config=hydra)


def _sets_a_value(override: str) -> bool:
    """Whether an override neither chooses from a folder of conf/ nor adds or removes anything."""
    key = override.partition("=")[0]
    return not key.startswith(("+", "~", "hydra")) and not (CONF_DIR / key.partition("@")[0]).is_dir()


@cache
def _settings(overrides: tuple[str, ...]) -> SftSettings:
    return fit_to_memory(asked_settings(*overrides))


def asked_settings(*overrides: str) -> SftSettings:
    """Return the settings of recipes/sft_lora.py as they are asked for, some perhaps still open."""
    return load_settings(composed(*overrides), SftSettings)


def sft_settings(*overrides: str) -> SftSettings:
    """Return the settings of recipes/sft_lora.py, settled, for the caller to change."""
    return deepcopy(_settings(overrides))


def change(settings: Any, key: str, value: Any) -> None:
    """Set a value by its dotted key, such as "trainer.seq_length"."""
    *path, name = key.split(".")
    for step in path:
        settings = getattr(settings, step)
    if not hasattr(settings, name):
        raise AttributeError(key)
    setattr(settings, name, value)
