"""The settings that a run records in its folder."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from nemo_reasoning.config import CONF_DIR, load_settings
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.errors import CheckpointError, ConfigError
from nemo_reasoning.hardware import register_resolvers


def check_own(path: Path) -> None:
    """Refuse to replace a file of settings that no run wrote.

    Raises:
        CheckpointError: It is there, and not a run's.
    """
    if not path.exists():
        return
    try:
        recorded = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else None
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError):
        recorded = None
    if not (isinstance(recorded, dict) and {"model", "data", "trainer"} <= recorded.keys()):
        raise CheckpointError(f"{path} was not written by a run, and would be replaced; move it away, or change name=")


def read_settings(path: Path) -> SftSettings:
    """Return recorded settings; those that an earlier version did not have get the defaults of conf/."""
    broken = f"{path} is broken; restore it from a copy, or remove it and start the training's command again"
    try:
        recorded = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(recorded, dict) or not recorded:
            raise CheckpointError(broken)
        return load_settings(OmegaConf.create(_filled(recorded, _defaults(), SftSettings)), SftSettings)
    except (YAMLError, OmegaConfBaseException, ConfigError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{broken} ({str(error).splitlines()[0]})") from error


@cache
def _defaults() -> Any:
    """Compose the settings of conf/sft_lora.yaml, also within a recipe, where Hydra is at work already."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register_resolvers()
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
            return OmegaConf.to_container(compose("sft_lora", overrides=["hardware=cpu"]), resolve=True)
    finally:
        GlobalHydra.instance().hydra = outer


def _filled(recorded: Mapping[Any, Any], defaults: Any, schema: Any) -> dict[str, Any]:
    """Return the values of a settings class: as recorded, else the default; keys it no longer has are left out."""
    hints, filled = get_type_hints(schema), {}
    for field in fields(schema):
        default = defaults.get(field.name) if isinstance(defaults, Mapping) else None
        value = recorded.get(field.name, default)
        inner = next((kind for kind in (hints[field.name], *get_args(hints[field.name])) if is_dataclass(kind)), None)
        filled[field.name] = _filled(value, default, inner) if inner and isinstance(value, Mapping) else value
    return filled
