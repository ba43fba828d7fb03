"""Typed settings of the recipes: what a composed Hydra configuration must look like.

Values live in conf/; these classes hold none, so that each default has one home. Every module holds
the dataclasses of a recipe, or of groups that recipes share, beside the checks that refuse a
combination. Importing this package loads neither torch nor NeMo.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_reasoning.config import data, doctor, evaluate, export, inference, train
from nemo_reasoning.config.trainer import AUTO_BATCH
from nemo_reasoning.errors import ConfigError

CONF_DIR = Path(__file__).resolve().parents[1] / "conf"


@dataclass(frozen=True)
class Recipe:
    """A command.

    Attributes:
        root: Its YAML at the top of conf/, without ending.
        settings: The class that a composed configuration must match.
        validate: Refuses settings of that class with a ConfigError that lists every problem.
    """

    root: str
    settings: type[Any]
    validate: Callable[[Any], None]


RECIPES = {
    "sft": Recipe("sft_lora", train.SftSettings, train.validate),
    "prepare": Recipe("prepare_data", data.PrepareSettings, data.validate),
    "export": Recipe("export", export.ExportSettings, export.validate),
    "evaluate": Recipe("evaluate", evaluate.EvaluateSettings, evaluate.validate),
    "generate": Recipe("generate", inference.GenerateSettings, inference.validate_generate),
    "serve": Recipe("serve", inference.ServeSettings, inference.validate_serve),
    "doctor": Recipe("doctor", doctor.DoctorSettings, doctor.validate),
}

Settings = TypeVar("Settings")


def load_settings(config: DictConfig, schema: type[Settings]) -> Settings:
    """Turn a composed configuration into typed settings.

    Args:
        config: What Hydra composed.
        schema: The dataclass it must match.

    Raises:
        ConfigError: A key is unknown, a value is missing, or has the wrong type; the message names it.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True)
        _stand_in_for_auto(plain)
        merged = OmegaConf.merge(OmegaConf.structured(schema), plain)
        return cast(Settings, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]  # the other lines describe OmegaConf's own types
        place = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{place}{reason}; `--help` lists the groups and keys") from error


def _stand_in_for_auto(plain: Any) -> None:
    """Put the number that stands for a micro-batch of `auto` in its place.

    Raises:
        ConfigError: The trainer has that number of its own; conf/hardware of a recorded run may.
    """
    for group in ("hardware", "trainer"):
        values = plain.get(group) if isinstance(plain, dict) else None
        if not isinstance(values, dict):
            continue  # named as missing, or as of the wrong type
        value = values.get("micro_batch_size")
        if group == "trainer" and value == AUTO_BATCH:
            raise ConfigError(f"trainer.micro_batch_size={value}: must be above 0, or auto")
        if value == "auto":
            values["micro_batch_size"] = AUTO_BATCH


def settings_to_dict(settings: Any) -> dict[str, Any]:
    """Return settings as plain dictionaries, lists and scalars (enums by name), ready for YAML or JSON."""
    plain = OmegaConf.to_container(OmegaConf.structured(settings), enum_to_str=True)
    return cast(dict[str, Any], plain)
