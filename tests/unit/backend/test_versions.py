"""Releases that this package was not written against are refused by name."""

from importlib import metadata

import pytest

from nemo_reasoning.backend.versions import require_supported_versions
from nemo_reasoning.errors import VersionError

Versions = dict[str, str]


def install(monkeypatch: pytest.MonkeyPatch, versions: Versions) -> None:
    """Make it look as if these distributions were installed, and no other."""

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.parametrize(("nemo", "megatron"), [("2.6.0", "0.15.0"), ("2.7.3", "0.15.3"), ("2.7.0rc1", "0.15")])
def test_supported(monkeypatch: pytest.MonkeyPatch, nemo: str, megatron: str) -> None:
    versions = {"nemo_toolkit": nemo, "megatron-core": megatron}
    install(monkeypatch, versions)

    assert require_supported_versions() == versions


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        (
            {"nemo_toolkit": "3.0.0", "megatron-core": "0.15.3"},
            "nemo_toolkit 3.0.0 is installed; version 2.6.x or 2.7.x",
        ),
        ({"nemo_toolkit": "2.70.0", "megatron-core": "0.15.3"}, "nemo_toolkit 2.70.0 is installed"),
        ({"nemo_toolkit": "2.7.0", "megatron-core": "0.16.0"}, "megatron-core 0.16.0 is installed; version 0.15.x"),
        ({"nemo_toolkit": "2.7.0"}, "megatron-core is not installed; version 0.15.x"),
        ({}, "nemo_toolkit is not installed; version 2.6.x or 2.7.x"),
    ],
)
def test_refused(monkeypatch: pytest.MonkeyPatch, versions: Versions, message: str) -> None:
    install(monkeypatch, versions)

    with pytest.raises(VersionError, match=f"^{message}.* is supported.*docs/version-matrix.md"):
        require_supported_versions()
