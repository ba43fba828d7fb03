"""From what Hydra composed to typed settings; what does not fit is named, all of it at once."""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass, make_dataclass
from difflib import get_close_matches
from enum import EnumType
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_reasoning.config.checks import as_list, secret
from nemo_reasoning.config.trainer import OPEN_SIZES
from nemo_reasoning.errors import ConfigError

CONF_DIR = Path(__file__).resolve().parents[1] / "conf"
CONF_PACKAGE = "pkg://nemo_reasoning.conf"  # the same for Hydra
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}

Settings = TypeVar("Settings")
Problems = dict[str, str]  # by the dotted key that is to blame


def load_settings(config: DictConfig, schema: type[Settings]) -> Settings:
    """Turn a composed configuration into typed settings.

    Args:
        config: What Hydra composed.
        schema: The dataclass it must match.

    Raises:
        ConfigError: Keys are unknown, values are missing or have the wrong type; the message lists all of them.
    """
    settings, problems = try_settings(config, schema)
    if settings is None:
        raise ConfigError(as_list(problems.values()))
    return settings


def try_settings(config: DictConfig, schema: type[Settings]) -> tuple[Settings | None, Problems]:
    """Return typed settings, or None and every problem by the key that is to blame."""
    plain, problems = _resolved(config)
    problems = dict(_misfits(plain, schema, "")) | problems | dict(_secrets(plain, ""))
    if problems:
        return None, problems
    return cast(Settings, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), plain))), {}


def settings_to_dict(settings: Any) -> dict[str, Any]:
    """Return settings as plain dictionaries, lists and scalars (enums by name), ready for YAML or JSON."""
    plain = OmegaConf.to_container(OmegaConf.structured(settings), enum_to_str=True)
    return cast(dict[str, Any], plain)


def read_group(group: str, name: str) -> DictConfig:
    """Return a file of conf/, merged over the files beside it that its `defaults` name.

    For values that are needed without Hydra: shapes of models, sizes of GPUs.

    Args:
        group: A folder of conf/, such as "model".
        name: A file in it, without ending.
    """
    own = cast(DictConfig, OmegaConf.load(CONF_DIR / group / f"{name}.yaml"))
    bases = [base for base in own.pop("defaults", []) if isinstance(base, str) and base != "_self_"]
    return cast(DictConfig, OmegaConf.merge(*(read_group(group, base) for base in bases), own))


def group_names(group: str) -> list[str]:
    """Return the choices of a group of conf/; a file whose name begins with "_" is only there to build on."""
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml") if not path.stem.startswith("_"))


# Of NeMo and Megatron, and missing here on purpose; docs/training.md says more.
_NOT_OFFERED = {
    "use_distributed_optimizer": "trainer.distributed_optimizer=true takes its place",
    "use_transformer_engine_op_fuser": "Transformer Engine's fused MLP refuses linears that carry an adapter",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" with the known dotted key nearest to one that is not known, or "" if none is near.

    A key may be near as a whole, or by its last part, where the shallowest key of that name is meant. For what NeMo has
    and this package does not offer it is the reason.
    """
    if reason := _NOT_OFFERED.get(name.rpartition(".")[2]):
        return f"; it is not offered: {reason}"
    keys = sorted(known, key=lambda key: key.count("."), reverse=True)
    by_last = {key.rpartition(".")[2]: key for key in keys}
    last = name.rpartition(".")[2]
    close = [*get_close_matches(name, keys, n=1, cutoff=0.8), *get_close_matches(last, list(by_last), n=1, cutoff=0.75)]
    close += [part for part in by_last if len(last) > 2 and part.startswith(last)]
    return f"; did you mean {by_last.get(close[0], close[0])}?" if close else ""


def _resolved(config: DictConfig) -> tuple[dict[str, Any], Problems]:
    """Return plain values, and the interpolations that lead nowhere; a missing value stays "???"."""
    problems: Problems = {}

    def plain(node: Any, prefix: str) -> Any:
        if OmegaConf.is_list(node):
            return OmegaConf.to_container(node, resolve=True)
        if not OmegaConf.is_dict(node):
            return node
        return {key: value(node, key, f"{prefix}{key}") for key in node}

    def value(node: Any, key: str, name: str) -> Any:
        if OmegaConf.is_missing(node, key):
            return "???"
        try:
            return plain(node[key], f"{name}.")
        except OmegaConfBaseException as error:
            problems[name] = f"{name}: {str(error).splitlines()[0]}"
            return None

    return cast(dict[str, Any], plain(config, "")), problems


def _secrets(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield (key, problem) for values that nobody may see; the problem does not hold them."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _secrets(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for entry in value:
            yield from _secrets(entry, name)
    elif isinstance(value, str) and (problem := secret(name, value)):
        yield name, problem


def _misfits(plain: dict[str, Any], schema: type[Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield (key, problem) for what does not fit a settings class."""
    hints = get_type_hints(schema)
    for name in (f"{prefix}{key}" for key in plain if key not in hints):
        yield name, f"{name}: there is no such setting{nearest(name, [f'{prefix}{known}' for known in hints])}"
    optional = {field.name for field in fields(schema) if (field.default, field.default_factory) != (MISSING, MISSING)}
    for key, hint in hints.items():
        name, value = f"{prefix}{key}", plain.get(key, "???")
        if key not in plain and key in optional:
            continue
        if value == "???":
            yield name, f"{name}: a value is missing; give {name}=..."
        elif key in OPEN_SIZES and value in ("auto", OPEN_SIZES[key]):
            plain[key] = OPEN_SIZES[key]
            if name.startswith("trainer.") and value != "auto":  # conf/hardware of a recorded run has it
                yield name, f"{name}={value}: must be above 0, or auto"
        else:
            yield from _misfit(value, hint, name)


def _misfit(value: Any, hint: Any, name: str) -> Iterator[tuple[str, str]]:
    inner = next((part for part in (hint, *get_args(hint)) if is_dataclass(part)), None)
    if inner is not None and isinstance(value, dict):
        for key, entry in value.items() if get_origin(hint) is dict else [("", value)]:
            yield from _misfits(entry, cast(type[Any], inner), f"{name}.{key}." if key else f"{name}.")
    elif get_origin(hint) is list and isinstance(value, list):
        for item in value:
            yield from _misfit(item, get_args(hint)[0], name)
    elif get_origin(hint) is dict and isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                yield f"{name}.{key}", f"{name}: the name {key} must be text; put it into quotes"
            yield from _misfit(entry, get_args(hint)[1], f"{name}.{key}")
    elif not _fits(value, hint):
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
        yield name, f"{name}={shown}: must be {_expected(hint)}{nearest(str(value), _choices(hint))}"


def _fits(value: Any, hint: Any) -> bool:
    """Whether OmegaConf takes a value where a type is asked for; that 7 is true and true is 1 we do not take."""
    kinds = (hint, *get_args(hint))
    if isinstance(value, bool) and bool not in kinds and str not in kinds:
        return False
    if bool in kinds and isinstance(value, int | float) and value not in (0, 1):
        return False
    return _taken(hint, type(value), value) if isinstance(value, Hashable) else _merges(hint, value)


@cache
def _taken(hint: Any, kind: type[Any], value: Hashable) -> bool:
    """Whether OmegaConf takes it; `kind` tells what is equal apart, such as 1 and 1.0."""
    return _merges(hint, value)


def _merges(hint: Any, value: Any) -> bool:
    try:
        OmegaConf.merge(_holder(hint), {"value": value})
    except OmegaConfBaseException:
        return False
    return True


@cache
def _holder(hint: Any) -> DictConfig:
    """Return a configuration with one value of a type."""
    return cast(DictConfig, OmegaConf.structured(make_dataclass("Holder", [("value", hint)])))


def _choices(hint: Any) -> list[str]:
    """Return the names of an enumeration, of one in an option or a list too."""
    return [name for part in (hint, *get_args(hint)) if isinstance(part, EnumType) for name in part.__members__]


def _expected(hint: Any) -> str:
    options = get_args(hint)
    optional = " or null" if NoneType in options else ""
    if get_origin(hint) is list:
        return f"a list, as in [{', '.join(_choices(hint)) or 'a, b'}]"
    if get_origin(hint) is dict:
        return "a mapping, as in {a: b}"
    if choices := _choices(hint):
        return f"one of {', '.join(choices)}{optional}"
    if optional:
        return _expected(next(part for part in options if part is not NoneType)) + optional
    return _WORDS.get(hint, "a group of settings")
