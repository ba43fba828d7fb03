"""Typed settings of the recipes: what a composed Hydra configuration must look like.

Values live in conf/; these classes hold none, so that each default has one home. Every module holds
the dataclasses of a recipe, or of groups that recipes share, beside the checks that refuse a
combination. Importing this package loads neither torch nor NeMo.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nemo_reasoning.config import data, doctor, evaluate, export, inference, push, self_improve, train
from nemo_reasoning.config.loading import (
    CONF_DIR,
    CONF_PACKAGE,
    group_names,
    load_settings,
    read_group,
    settings_to_dict,
)

__all__ = [
    "CONF_DIR",
    "CONF_PACKAGE",
    "RECIPES",
    "Recipe",
    "group_names",
    "load_settings",
    "read_group",
    "settings_to_dict",
]


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
    "self_improve": Recipe("self_improve", self_improve.SelfImproveSettings, self_improve.validate),
    "prepare": Recipe("prepare_data", data.PrepareSettings, data.validate),
    "export": Recipe("export", export.ExportSettings, export.validate),
    "push": Recipe("push", push.PushSettings, push.validate),
    "evaluate": Recipe("evaluate", evaluate.EvaluateSettings, evaluate.validate),
    "generate": Recipe("generate", inference.GenerateSettings, inference.validate_generate),
    "serve": Recipe("serve", inference.ServeSettings, inference.validate_serve),
    "doctor": Recipe("doctor", doctor.DoctorSettings, doctor.validate),
}
