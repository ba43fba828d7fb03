"""What workers of a cluster do in tests; they import this without what the tests themselves need."""

import os
from pathlib import Path

from nemo_reasoning.errors import DataError


def dies_once(path: Path) -> str:
    if path.name == "2" and not path.exists():
        path.touch()
        os._exit(9)
    return path.name


def dies(path: Path) -> None:
    os._exit(9)


def refuses(path: Path) -> None:
    raise DataError(f"{path.name} cannot be read")
