"""Ask whether model and data can be had, without downloading them."""

import os
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nemo_reasoning.config.data import DataSource
from nemo_reasoning.config.doctor import DoctorSettings
from nemo_reasoning.config.model import Init
from nemo_reasoning.doctor.facts import Access, Source
from nemo_reasoning.packages import pip_command


def find_sources(settings: DoctorSettings) -> tuple[Source, ...]:
    """Return where model and data come from, and whether they can be read."""
    found = []
    if settings.model.init is not Init.random:
        found.append(model_source(settings.model.source, settings.model.revision, timeout=settings.timeout_seconds))
    data = settings.data
    if data.source is DataSource.nemotron and data.root:
        found.append(data_source(data.root, timeout=settings.timeout_seconds))
    for path in data.paths if data.source is DataSource.jsonl else []:
        access = Access.here if "*" in path or Path(path).expanduser().exists() else Access.missing
        found.append(Source(key="data.paths", name=path, access=access))
    return tuple(found)


def model_source(name: str, revision: str | None, *, timeout: float) -> Source:
    """Return whether a base model can be had.

    Args:
        name: As in conf/model: a directory, pypi:package/file, or a hub id.
        revision: Of a hub model.
        timeout: Seconds the hub has to answer.
    """
    key = "model.source"
    if name.startswith("pypi:"):
        package = name.removeprefix("pypi:").partition("/")[0]
        installed = package.isidentifier() and find_spec(package) is not None
        detail = "" if installed else pip_command(package)
        return Source(key=key, name=name, access=Access.here if installed else Access.missing, detail=detail)
    if Path(name).expanduser().is_dir():
        complete = (Path(name).expanduser() / "config.json").is_file()
        access = Access.here if complete else Access.missing
        return Source(key=key, name=name, access=access, detail="" if complete else "it has no config.json")
    if _cached(name, revision):
        return Source(key=key, name=name, access=Access.here)
    access, detail = ask_hub(f"{name}/resolve/{revision or 'main'}/config.json", timeout=timeout)
    return Source(key=key, name=name, access=access, detail=detail)


def data_source(root: str, *, timeout: float) -> Source:
    """Return whether a dataset can be had; `root` is a directory or a hub id, `timeout` in seconds."""
    if Path(root).expanduser().is_dir():
        return Source(key="data.root", name=root, access=Access.here)
    access, detail = ask_hub(f"datasets/{root}/resolve/main/README.md", timeout=timeout)
    return Source(key="data.root", name=root, access=access, detail=detail)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is answer enough; the token is for the hub alone."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


def ask_hub(path: str, *, timeout: float) -> tuple[Access, str]:
    """Return whether the hub grants a file, and the reason if not.

    Args:
        path: Below the hub's address.
        timeout: In seconds.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return Access.offline, "HF_HUB_OFFLINE is set"
    if find_spec("huggingface_hub") is None:
        return Access.offline, "huggingface_hub is not installed"
    address = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{path}"
    token = _token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(address, method="HEAD", headers=headers)  # noqa: S310 - of the hub
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout):
            return Access.granted, ""
    except urllib.error.HTTPError as error:
        return _verdict(error.code, error.headers.get("X-Error-Code", ""))
    except OSError as error:  # URLError and timeouts among them
        return Access.offline, str(getattr(error, "reason", error))


def _verdict(status: int, code: str) -> tuple[Access, str]:
    if 300 <= status < 400:
        return Access.granted, ""
    if code == "GatedRepo":
        return Access.gated, ""
    if status in (401, 403, 404):  # the hub hides from strangers whether a private repository exists
        return Access.missing, code or f"status {status}"
    return Access.offline, f"status {status}"


def has_token() -> bool:
    """Return whether there is a token for the hub, in HF_TOKEN or saved by `hf auth login`."""
    return _token() is not None


def _token() -> str | None:
    try:
        from huggingface_hub import get_token

        return get_token()
    except (ImportError, OSError):  # reported with the packages, and with the folder of downloads
        return None


def _cached(name: str, revision: str | None) -> bool:
    if find_spec("huggingface_hub") is None:
        return False
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    weights = ("model.safetensors", "model.safetensors.index.json")
    try:
        held = {
            file: isinstance(try_to_load_from_cache(name, file, revision=revision), str)
            for file in ("config.json", *weights)
        }
        return held["config.json"] and any(held[file] for file in weights)
    except HFValidationError:
        return False
