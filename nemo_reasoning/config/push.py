"""Settings of recipes/push.py."""

import re
from dataclasses import dataclass
from enum import Enum

from nemo_reasoning.config import checks

_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


class Pushed(Enum):
    """What is uploaded."""

    hf_peft = "hf_peft"
    merged = "merged"
    gguf = "gguf"
    data = "data"


@dataclass
class PushSettings:
    """conf/push.yaml."""

    checkpoint: str
    repo: str
    what: Pushed
    license: str | None
    datasets: list[str]
    private: bool
    revision: str | None
    dry_run: bool


def validate(settings: PushSettings) -> None:
    """Refuse what a hub would refuse, before anything is read.

    Raises:
        ConfigError: Lists every problem found, each with its remedy.
    """
    problems = []
    if not _REPO.fullmatch(settings.repo):
        problems.append(f"repo={settings.repo}: give owner/name, of letters, digits, '-', '_' and '.'")
    if settings.license is not None and not _LICENSE.fullmatch(settings.license):
        problems.append(f"license={settings.license}: give a hub's spelling, such as apache-2.0, llama3.1 or cc-by-4.0")
    problems += [
        f"datasets={name}: give hub ids, owner/name" for name in settings.datasets if not _REPO.fullmatch(name)
    ]
    checks.refuse(problems)
