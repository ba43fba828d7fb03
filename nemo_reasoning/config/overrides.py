"""The command line: what a command can choose from, and everything that is wrong with the overrides given to it.

Hydra stops at the first override it cannot use, so `problems_of` is asked once something has failed.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill, indent
from typing import Any, cast

from hydra import compose, initialize_config_module
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_reasoning.config import Recipe
from nemo_reasoning.config.checks import as_list, hidden
from nemo_reasoning.config.loading import CONF_DIR, CONF_PACKAGE, nearest, try_settings
from nemo_reasoning.errors import ConfigError

_COMPOSING = (HydraException, OmegaConfBaseException)


def composed_settings(recipe: Recipe, overrides: Sequence[str]) -> Any:
    """Return the checked settings of a command.

    Raises:
        ConfigError: Lists everything that is wrong.
    """
    with initialize_config_module("nemo_reasoning.conf", version_base="1.3"):
        config = _composed(recipe, list(overrides))
        settings = None if config is None else try_settings(config, recipe.settings)[0]
        if settings is None:
            raise ConfigError(as_list(problems_of(recipe, overrides)))
    recipe.validate(settings)
    return settings


def problems_of(recipe: Recipe, overrides: Sequence[str]) -> list[str]:
    """Return everything that is wrong with the overrides of a command, each with its remedy.

    Hydra has to be initialized with conf/ and whatever the user adds to it.

    Args:
        recipe: The command.
        overrides: As on its command line, without flags.
    """
    found = dict(_unusable(recipe, overrides))
    usable = [text for text in overrides if text not in found]
    config = _composed(recipe, usable)
    if config is None:
        choices = [text for text in usable if key_of(text) in groups_of(recipe)]
        broken = [text for text in usable if _composed(recipe, [*choices, text]) is None] or usable
        found |= {text: f"{text}: this value cannot stand here; `--help` shows what does" for text in broken}
        usable = [text for text in usable if text not in broken]
        config = _composed(recipe, usable)
    return list(found.values()) + ([] if config is None else _of_values(recipe, config, usable))


def problems_of_command_line(recipe: Recipe) -> list[str]:
    """Return everything that is wrong with the overrides in `sys.argv`; sets Hydra up as its flags say."""
    args = get_args_parser().parse_args()
    path = create_config_search_path(CONF_PACKAGE)
    if args.config_dir is not None:
        folder = Path(args.config_dir).resolve()
        if not folder.is_dir():
            return [f"--config-dir {args.config_dir}: there is no such folder"]
        path.prepend(provider="command-line", path=f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
    Hydra.create_main_hydra2(task_name=recipe.root, config_search_path=path)
    return problems_of(recipe, args.overrides)


def register_help(recipe: Recipe, command: str) -> None:
    """Make `${command:}`, `${choices:}` and `${indent:}` available to the help text in conf/hydra/default.yaml.

    Args:
        recipe: The command.
        command: How it was called.
    """
    OmegaConf.register_new_resolver("command", lambda: command, replace=True)
    OmegaConf.register_new_resolver("choices", lambda: _choices_text(recipe), replace=True)
    OmegaConf.register_new_resolver("indent", lambda text: indent(text, "  "), replace=True)


def _choices_text(recipe: Recipe) -> str:
    """Return the groups that a command can choose from, with the choice it makes by itself and the others."""
    loader = GlobalHydra.instance().config_loader()
    lines = []
    for group, choice in groups_of(recipe).items():
        others = [option for option in group_options(loader, group) if option != choice]
        if others:
            start = f"  {f'{group}={choice}':22} or "
            lines.append(fill(", ".join(others), 110, initial_indent=start, subsequent_indent=" " * len(start)))
    return "Groups, each with its default:\n" + "\n".join(lines) + "\n" if lines else ""


def _of_values(recipe: Recipe, config: DictConfig, overrides: list[str]) -> list[str]:
    """Return which values do not fit, and what is wrong with the others, but for what the former may cause."""
    settings, misfits = try_settings(config, recipe.settings)
    if settings is None:
        kept = [text for text in overrides if not any(key_of(text).startswith(key) for key in misfits)]
        rest = _composed(recipe, kept)
        settings = None if rest is None else try_settings(rest, recipe.settings)[0]
    problems = list(misfits.values())
    if settings is not None:
        try:
            recipe.validate(settings)
        except ConfigError as error:
            lines = [line.removeprefix("- ") for line in str(error).splitlines()]
            problems += [line for line in lines if not any(key in line for key in misfits)]
    return problems


def _unusable(recipe: Recipe, overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (override, problem) for what cannot be read, or names a group, choice or setting that does not exist."""
    loader = GlobalHydra.instance().config_loader()
    groups = groups_of(recipe)
    choices = []
    for text in overrides:
        override = _parsed(text)
        if override is None:
            yield (
                text,
                f"{hidden(text)}: cannot be read; write key=value, in quotes where it has spaces, braces or commas",
            )
        elif override.is_delete() or override.key_or_group.startswith("hydra"):
            continue
        elif override.key_or_group in groups:
            options = group_options(loader, override.key_or_group)
            wrong = [choice for choice in _chosen(override) if choice not in (*options, "null")]
            for choice in wrong:
                near = nearest(choice, options) or f"; choose one of {', '.join(options)}"
                yield text, f"{override.key_or_group}={choice}: there is no such choice{near}"
            choices += [] if wrong else [text]
    config = _composed(recipe, choices)
    known = [*groups, *(_dotted(config, "") if config is not None else [])]
    for text in overrides:
        override = _parsed(text)
        if override is None or override.is_add() or override.key_or_group.startswith("hydra"):
            continue
        if override.key_or_group not in known:
            near = nearest(override.key_or_group, known) or "; `--help` lists them"
            yield text, f"{override.key_or_group}: there is no such setting or group{near}"


def groups_of(recipe: Recipe) -> dict[str, str]:
    """Return the groups that a command can choose from, each with what it chooses by itself."""
    return {group: choice for group, choice in _defaults(recipe.root) if group != "hydra"}


def _defaults(root: str) -> Iterator[tuple[str, str]]:
    """Yield (group, choice) of a root YAML and of those it builds on."""
    for item in cast(DictConfig, OmegaConf.load(CONF_DIR / f"{root}.yaml")).defaults:
        if OmegaConf.is_dict(item):
            for group, choice in item.items():
                yield str(group), ", ".join(_as_list(choice))
        elif item != "_self_":
            yield from _defaults(item)


def group_options(loader: ConfigLoader, group: str) -> list[str]:
    """Return the choices of a group: those in files, since NeMo registers groups of its own in Hydra's store."""
    files = [source for source in loader.get_sources() if source.scheme() != "structured" and source.is_group(group)]
    options = {option for source in files for option in source.list(group, ObjectType.CONFIG)}
    return sorted(option for option in options if not option.startswith("_"))


def _composed(recipe: Recipe, overrides: list[str]) -> DictConfig | None:
    try:
        return compose(recipe.root, overrides=[_without_sweep(text) for text in overrides])
    except _COMPOSING:
        return None  # asked in order to find out


def _parsed(text: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None


def key_of(text: str) -> str:
    """Return the setting or group that an override is of; "" if it cannot be read."""
    override = _parsed(text)
    return "" if override is None else override.key_or_group


def _without_sweep(text: str) -> str:
    """Return an override with the first value of a sweep in the sweep's place."""
    override = _parsed(text)
    if override is None or not override.is_sweep_override():
        return text
    return f"{override.key_or_group}={next(override.sweep_string_iterator())}"


def _chosen(override: Override) -> list[str]:
    """Return the choices of an override of a group: one, those of a list, or those of a sweep."""
    value = override.value()
    return _as_list(value.list if isinstance(value, ChoiceSweep) else value)


def _as_list(choice: Any) -> list[str]:
    several = OmegaConf.is_list(choice) or isinstance(choice, list)
    return ["null" if name is None else str(name).removesuffix(".yaml") for name in (choice if several else [choice])]


def _dotted(node: DictConfig, prefix: str) -> Iterator[str]:
    """Yield every key of a configuration, dotted, groups of settings among them."""
    for key in map(str, node):
        yield f"{prefix}{key}"
        plain = not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key)
        if plain and OmegaConf.is_dict(node[key]):
            yield from _dotted(node[key], f"{prefix}{key}.")
