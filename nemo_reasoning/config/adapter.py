"""What an adapter to start from says about itself: a run, a PEFT directory or a hub id; no weights are read."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from nemo_reasoning.errors import ConfigError

ADAPTER_CONFIG, START_FROM = "adapter_config.json", "peft.start_from"
RUN_CONFIG = "config.yaml"  # a run's settings, in its folder
# PEFT's names of the modules behind each of Megatron's linears.
PEFT_MODULES = {
    "linear_qkv": ("q_proj", "k_proj", "v_proj"),
    "linear_proj": ("o_proj",),
    "linear_fc1": ("gate_proj", "up_proj"),
    "linear_fc2": ("down_proj",),
}
_MODULES = tuple(module for modules in PEFT_MODULES.values() for module in modules)
# What plain LoRA does not have: other parameters, or other scales.
_BESIDE = (
    *("use_dora", "bias", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out"),
    *("trainable_token_indices", "target_parameters", "layer_replication", "use_qalora", "alora_invocation_tokens"),
)
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq")  # ways to begin that take a part out of the base


@dataclass(frozen=True)
class AdapterConfig:
    """A LoRA adapter, by its configuration.

    Attributes:
        dim: Rank.
        alpha: PEFT's lora_alpha.
        rslora: Whether the scale is alpha / sqrt(dim).
        modules: PEFT's names of the adapted modules.
        base: What it calls its base model.
    """

    dim: int
    alpha: float
    rslora: bool
    modules: frozenset[str]
    base: str | None

    @property
    def target_modules(self) -> list[str]:
        """Megatron's names of the linears of which anything is adapted."""
        return [name for name, parts in PEFT_MODULES.items() if self.modules & set(parts)]

    @property
    def scale(self) -> float:
        """Factor on the adapter's output."""
        return self.alpha / (self.dim**0.5 if self.rslora else self.dim)


def is_run(folder: Path | str) -> bool:
    """Whether recipes/sft_lora.py wrote a folder."""
    return (Path(folder) / RUN_CONFIG).is_file()


@cache
def adapter_config(source: str, setting: str = START_FROM) -> AdapterConfig:
    """Return the configuration of an adapter; of one on a hub, nothing else is downloaded.

    Args:
        source: A run, a PEFT directory or a hub id.
        setting: The one that names it, for messages.

    Raises:
        ConfigError: There is none, or it is not plain LoRA on the linears of the layers; lists everything.
    """
    folder, named = Path(source).expanduser(), f"{setting}={source}"
    try:
        if is_run(folder):
            return _of_run(yaml.safe_load((folder / RUN_CONFIG).read_text(encoding="utf-8")), named)
        file = folder / ADAPTER_CONFIG if folder.is_dir() else Path(_downloaded(source, named))
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{named} is neither a run nor a PEFT directory: it has no config.yaml and no {ADAPTER_CONFIG}"
        ) from None
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{named}: its configuration cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{named}: its {ADAPTER_CONFIG} holds no settings")
    if problems := _problems(config):
        raise ConfigError("\n".join(f"{named} {problem}" for problem in problems))
    return AdapterConfig(
        dim=config["r"],
        alpha=config["lora_alpha"],
        rslora=bool(config.get("use_rslora")),
        modules=_modules(config["target_modules"]),
        base=config.get("base_model_name_or_path"),
    )


def _downloaded(source: str, named: str) -> str:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return hf_hub_download(source, ADAPTER_CONFIG)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"{named} is no directory, and no adapter that can be downloaded "
            f"({str(error.__cause__ or error).splitlines()[0]}); check the spelling, the network and HF_TOKEN"
        ) from error


def _of_run(recorded: Any, named: str) -> AdapterConfig:
    try:
        peft, model = recorded["peft"], recorded["model"]
        if peft["scheme"] not in ("lora", "qlora"):
            raise ConfigError(
                f"{named} was trained with peft={peft['scheme']}; only LoRA is trained further, merged or added; to "
                "train on from it, export formats=[merged] and name that with model=hf_local model.source="
            )
        modules = frozenset(module for target in peft["target_modules"] for module in PEFT_MODULES[target])
        return AdapterConfig(peft["dim"], peft["alpha"], peft["rslora"], modules, model["source"])
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{named}: its config.yaml is not one of a run ({error})") from error


def _problems(config: Mapping[str, Any]) -> list[str]:
    if config.get("peft_type") != "LORA":
        return [f"is a {config.get('peft_type')} adapter; only LoRA is trained further, merged or added"]
    found = [
        f"has {key}={config[key]!r}; only plain LoRA is trained further, merged or added"
        for key in _BESIDE
        if config.get(key) not in (None, False, "none", "", [], {})
    ]
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_CHANGE_THE_BASE):
        found.append(
            f"has init_lora_weights={init!r}, which changed the base's weights; convert it to plain LoRA first"
        )
    dim, alpha, targets = config.get("r"), config.get("lora_alpha"), config.get("target_modules")
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        found.append(f"has r={dim!r}, which is no rank")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or alpha <= 0:
        found.append(f"has lora_alpha={alpha!r}, which is no factor")
    if isinstance(targets, list):
        others = sorted({str(name).rpartition(".")[2] for name in targets} - set(_MODULES))
        if others:
            found.append(f"adapts {', '.join(others)}; only {', '.join(_MODULES)} are trained further, merged or added")
    if not targets or not isinstance(targets, list | str) or not _modules(targets):
        found.append(f"has target_modules={targets!r}, none of {', '.join(_MODULES)}")
    return found


def _modules(targets: list[str] | str) -> frozenset[str]:
    """Return the modules that PEFT's target_modules name: a list, a pattern of whole names, or "all-linear"."""
    if isinstance(targets, list):
        return frozenset(str(name).rpartition(".")[2] for name in targets) & frozenset(_MODULES)
    if targets == "all-linear":
        return frozenset(_MODULES)
    rooms = {"linear_qkv": "self_attn", "linear_proj": "self_attn", "linear_fc1": "mlp", "linear_fc2": "mlp"}
    names = {name: f"model.layers.0.{rooms[target]}.{name}" for target, parts in PEFT_MODULES.items() for name in parts}
    try:
        return frozenset(name for name, whole in names.items() if re.fullmatch(targets, whole))
    except re.error:
        return frozenset()


def of_adapter(source: str | None, start: Any, key: str, fresh: Any) -> Any:
    """Return an adapter's own value of a setting where training goes on with it, else `fresh`.

    conf/peft takes it for the default of the setting. An adapter that cannot be read is refused by whoever checks
    the settings.
    """
    if source is None or str(getattr(start, "name", start)) != "adapter":
        return fresh
    try:
        return getattr(adapter_config(source), key)
    except ConfigError:
        return fresh
