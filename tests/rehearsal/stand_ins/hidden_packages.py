"""Packages that are installed and not to be found, as in an image that lacks them."""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from typing import Any


class _Hiding:
    """A finder that finds all but some packages; asked for those, it answers as where they are not installed."""

    def __init__(self, finder: Any, packages: set[str]) -> None:
        self.finder, self.packages = finder, packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        hidden = name.partition(".")[0] in self.packages
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


def hide(names: Iterable[str]) -> None:
    """Let no import and no question about metadata find these packages."""
    packages = {name.strip().replace("-", "_").lower() for name in names}
    sys.meta_path[:] = [_Hiding(finder, packages) for finder in sys.meta_path]  # type: ignore[list-item]
    find_spec, version = importlib.util.find_spec, importlib.metadata.version

    def find_others(name: str, package: str | None = None) -> Any:
        return None if name.partition(".")[0] in packages else find_spec(name, package)

    def version_of_others(name: str) -> str:
        if name.replace("-", "_").lower() in packages:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    importlib.util.find_spec = find_others  # type: ignore[assignment]
    importlib.metadata.version = version_of_others
