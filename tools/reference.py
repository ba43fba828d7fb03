"""Write docs/configuration.md from the settings classes and the comments in conf/: `python tools/reference.py`."""

import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import EnumType
from pathlib import Path
from types import NoneType
from typing import Any, cast, get_args, get_origin, get_type_hints

import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from nemo_reasoning.config import CONF_DIR, RECIPES
from nemo_reasoning.config.overrides import group_options, groups_of
from nemo_reasoning.hardware import register_resolvers

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"
_LINE = re.compile(r"^(\s*)([\w]+):(?: (.*?))??(?:\s+# (.*))?$")
_HEAD = """# Every setting

Written by `tools/reference.py` from the settings classes and the comments in `conf/`. A setting is changed with
`key=value`, a group with `group=choice`. Defaults are those without any override, where a reference such as
`${model.recommended.lr}` takes the value of another setting.
"""


def comments(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, comment) of a YAML file."""
    path: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if match := _LINE.match(line):
            depth, key, comment = len(match[1]), match[2], match[4]
            path = [*((at, name) for at, name in path if at < depth), (depth, key)]
            if comment:
                yield ".".join(name for _, name in path), comment


def rows(hints: dict[str, Any], values: Any, said: dict[str, str], prefix: str) -> Iterator[str]:
    """Yield a line of the table for each setting of a class."""
    for key, hint in hints.items():
        name = f"{prefix}{key}"
        inner = next((part for part in (hint, *get_args(hint)) if is_dataclass(part)), None)
        node = values.get(key) if OmegaConf.is_dict(values) and not OmegaConf.is_missing(values, key) else None
        if isinstance(inner, type) and get_origin(hint) is not dict and OmegaConf.is_dict(node):
            yield from rows(get_type_hints(inner), node, said, f"{name}.")
        else:
            default = _default(values, key)
            yield f"| `{name}` | {kind(hint)} | {default} | {said.get(name, '').replace('|', chr(92) + '|')} |"


def _default(values: Any, key: str) -> str:
    if not OmegaConf.is_dict(values) or key not in values:
        return ""
    if OmegaConf.is_missing(values, key):
        return "you give it"
    plain = cast(dict[str, Any], OmegaConf.to_container(values, resolve=False))[key]
    text = " ".join(yaml.safe_dump(plain, default_flow_style=True, width=10**6).removesuffix("...\n").split())
    return f"`{text}`" if len(text) < 90 else f"`{text[:80]}…`"


def kind(hint: Any) -> str:
    """Return a type in words."""
    options = get_args(hint)
    if isinstance(hint, EnumType):
        return ", ".join(f"`{name}`" for name in hint.__members__)
    if NoneType in options:
        return f"{kind(next(part for part in options if part is not NoneType))} or `null`"
    if get_origin(hint) is list:
        return f"list of {kind(options[0])}"
    if get_origin(hint) is dict:
        return "mapping"
    words = {int: "whole number", float: "number", bool: "`true`, `false`", str: "text"}
    return words.get(hint, "settings")


def sections() -> Iterator[str]:
    """Yield the page, a section for each group and for each command's own settings."""
    done = set[str]()
    for name, recipe in RECIPES.items():
        config, hints = compose(recipe.root), get_type_hints(recipe.settings)
        groups = groups_of(recipe)
        own = {key: hint for key, hint in hints.items() if key not in groups and key not in done}
        if name == "doctor":
            training = get_type_hints(RECIPES["sft"].settings)
            own = {key: hint for key, hint in own.items() if key not in training}
        yield f"\n## `nemo-reasoning {name}`\n"
        others = [group for group in groups if group in done]
        if others:
            yield f"Groups shared with other commands: {', '.join(f'[{group}](#{group})' for group in others)}.\n"
        yield from _table(own, config, dict(comments(CONF_DIR / f"{recipe.root}.yaml")), "")
        for group in (group for group in groups if group not in done):
            done.add(group)
            yield from _group(group, hints, config)


def _group(group: str, hints: dict[str, Any], config: Any) -> Iterator[str]:
    from hydra.core.global_hydra import GlobalHydra

    options = group_options(GlobalHydra.instance().config_loader(), group)
    yield f"\n### {group}\n"
    yield f"Choices: {', '.join(f'`{option}`' for option in options)}.\n"
    if group not in hints:
        return
    said = {key: text for file in sorted((CONF_DIR / group).glob("*.yaml")) for key, text in comments(file)}
    said = {f"{group}.{key.removeprefix(f'{group}.')}": text for key, text in said.items()}
    hint, values, prefix = hints[group], config[group], f"{group}."
    if get_origin(hint) is dict:  # of benchmarks by name
        first = next(iter(values))
        hint, values, prefix = get_args(hint)[1], values[first], f"{group}.{first}."
        said = {key.replace(f"{group}.", prefix, 1): text for key, text in said.items()}
    yield from _table(get_type_hints(hint), values, said, prefix)


def _table(hints: dict[str, Any], values: Any, said: dict[str, str], prefix: str) -> Iterator[str]:
    lines = list(rows(hints, values, said, prefix))
    if lines:
        yield "\n".join(["| setting | value | default | what |", "|---|---|---|---|", *lines])


def page() -> str:
    """Return the text of docs/configuration.md."""
    register_resolvers()
    with initialize_config_module("nemo_reasoning.conf", version_base="1.3"):
        return _HEAD + "\n".join(sections()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
