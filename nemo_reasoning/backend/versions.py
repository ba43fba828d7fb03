"""Refuse NeMo and Megatron-Core releases this package was not written against."""

import re
from importlib import metadata

from nemo_reasoning.errors import VersionError

SUPPORTED = {"nemo_toolkit": ("2.6", "2.7"), "megatron-core": ("0.15",)}
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
        wanted = " or ".join(f"{release}.x" for release in series)
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise VersionError(f"{name} is not installed; version {wanted} is supported. {REMEDY}") from None
        if not any(re.match(rf"{re.escape(release)}(\D|$)", version) for release in series):
            raise VersionError(f"{name} {version} is installed; version {wanted} is supported. {REMEDY}")
        found[name] = version
    return found
