"""Packages that are installed and not to be found, as in an image that lacks them."""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable
from importlib.abc import MetaPathFinder
from typing import Any


class _Hiding(MetaPathFinder):
    def __init__(self, packages: set[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def hide(names: Iterable[str]) -> None:
    """Let no import and no question about metadata find these packages."""
    packages = {name.strip().replace("-", "_").lower() for name in names}
    sys.meta_path.insert(0, _Hiding(packages))
    find_spec, version = importlib.util.find_spec, importlib.metadata.version

    def find_others(name: str, package: str | None = None) -> Any:
        return None if name.partition(".")[0] in packages else find_spec(name, package)

    def version_of_others(name: str) -> str:
        if name.replace("-", "_").lower() in packages:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    importlib.util.find_spec = find_others  # type: ignore[assignment]
    importlib.metadata.version = version_of_others
