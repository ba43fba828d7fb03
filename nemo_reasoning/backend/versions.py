"""Refuse NeMo and Megatron-Core releases this package was not written against."""

import re
from importlib import metadata

from nemo_reasoning.errors import VersionError

SUPPORTED = {"nemo_toolkit": "2.7", "megatron-core": "0.15"}
REMEDY = (
    "Use an nvcr.io/nvidia/nemo container that holds them (docs/version-matrix.md), "
    "or `make setup` for the pinned CPU environment."
)


def require_supported_versions() -> dict[str, str]:
    """Return the installed NeMo and Megatron-Core versions.

    Raises:
        VersionError: One of them is absent or of another release series; the message names both.
    """
    found = {}
    for name, series in SUPPORTED.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise VersionError(f"{name} is not installed; version {series}.x is supported. {REMEDY}") from None
        if not re.match(rf"{re.escape(series)}(\D|$)", version):
            raise VersionError(f"{name} {version} is installed; version {series}.x is supported. {REMEDY}")
        found[name] = version
    return found
