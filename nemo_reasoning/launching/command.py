"""The command that a launcher starts: the one that was called, without what concerns launching."""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from nemo_reasoning.config.overrides import key_of

_PLAIN = re.compile(r"[\w./~@+-]+")


@dataclass(frozen=True)
class Command:
    """A command of this package as it was called.

    Attributes:
        program: The script or the console script, absolute.
        name: Of the command, where the program has several; else None.
        flags: Of Hydra, that every start needs.
        overrides: As given.
        finds_hardware: Whether `hardware=auto` is in force, which the machine that trains decides.
        folder: Where it was called.
    """

    program: Path
    name: str | None
    flags: tuple[str, ...]
    overrides: tuple[str, ...]
    finds_hardware: bool
    folder: Path

    @classmethod
    def running(cls, name: str) -> "Command":
        """Return the command of this process, within its job of Hydra.

        Args:
            name: Of the command.
        """
        hydra, (program, *given) = HydraConfig.get(), sys.argv
        folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
        return cls(
            program=Path(program).absolute(),
            name=name if given[:1] == [name] else None,
            flags=tuple(f"--config-dir={folder}" for folder in folders),
            overrides=tuple(hydra.overrides.task),
            finds_hardware=hydra.runtime.choices.get("hardware") == "auto",
            folder=Path.cwd(),
        )

    @property
    def arguments(self) -> list[str]:
        """Everything behind the program's name but the overrides."""
        return [*([self.name] if self.name else []), *self.flags]

    def told(self, pinned: Mapping[str, str | int]) -> list[str]:
        """Return the overrides of a start: those given but for the launch group and `dry_run`, and more that are fixed.

        Args:
            pinned: Values by dotted key, in place of those given.
        """
        kept = [text for text in self.overrides if not _is_ours(text) and key_of(text) not in pinned]
        chosen = any(key_of(text) == "launch" for text in self.overrides)
        local = [] if chosen else ["launch=local"]  # a file of conf/experiment chose another
        return [*kept, *local, *(f"{key}={_quoted(value)}" for key, value in pinned.items())]


def _is_ours(text: str) -> bool:
    key = key_of(text)
    return key in ("launch", "dry_run") or key.startswith("launch.")


def _quoted(value: str | int) -> str:
    """Return a value as Hydra's overrides take it."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
