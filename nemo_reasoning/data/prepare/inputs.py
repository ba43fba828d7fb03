"""Which files hold the rows of each subset, and what identifies them."""

import fnmatch
import glob
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from nemo_reasoning.artifacts import atomic_path, file_sha256
from nemo_reasoning.config.data import DataSettings, DataSource
from nemo_reasoning.data.builtin import training_rows
from nemo_reasoning.data.prepare.files import file_size, is_remote
from nemo_reasoning.errors import DataError

ALIASES = {"coding": "code"}
_HASHED_WHOLE = 256 * 2**20


@dataclass(frozen=True)
class Subset:
    """Rows that are counted together.

    Attributes:
        name: Such as "math"; "rows" for files of one's own.
        files: Addresses, in the order their rows are read.
        rows: Rows wanted; None for all.
    """

    name: str
    files: tuple[str, ...]
    rows: int | None


def find_subsets(data: DataSettings) -> list[Subset]:
    """Return what to read, hub files at a fixed commit; the built-in problems have no file yet.

    Raises:
        DataError: A subset is unknown, or nothing matches a path.
    """
    if missing := [path for path in data.filters.overlap_files if not Path(path).is_file()]:
        raise DataError(f"data.filters.overlap_files: no such file: {', '.join(missing)}")
    if data.source is DataSource.nemotron:
        root = _root(data)
        return [
            Subset(name, _matching(data, root, name), rows)
            for name, rows in sorted((ALIASES.get(name, name), rows) for name, rows in data.subsets.items())
        ]
    if data.rows is None and data.source is DataSource.builtin:
        raise DataError("data.rows=null: the built-in problems never end; give a number of rows")
    files = tuple(file for path in data.paths for file in _expanded(path))
    return [Subset("rows", files, data.rows)]


def describe_inputs(subsets: list[Subset], data: DataSettings) -> dict[str, Any]:
    """Return what identifies the rows: equal descriptions mean equal rows.

    A file is identified by its SHA-256; above 256 MB by its size and its time of change, since hashing
    the whole data set would take longer than sampling from it. Hub files by their commit.
    """
    if data.source is DataSource.builtin:
        return {"builtin": {"rows": data.rows, "seed": data.seed}}
    return {subset.name: {file: _identity(file) for file in subset.files} for subset in subsets}


def write_builtin(data: DataSettings, path: Path) -> Path:
    """Write the built-in problems as JSON Lines."""
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as lines:
        for row in training_rows(count=data.rows or 0, seed=data.seed, off_share=0):
            lines.write(json.dumps(row) + "\n")
    return path


def _identity(address: str) -> dict[str, Any]:
    size = file_size(address)
    if is_remote(address):
        return {"bytes": size}
    path = Path(address)
    if size <= _HASHED_WHOLE:
        return {"bytes": size, "sha256": file_sha256(path)}
    return {"bytes": size, "changed_ns": path.stat().st_mtime_ns}


def _root(data: DataSettings) -> str:
    """Return the folder or the address below which `layout` lies."""
    if data.root is None:
        raise DataError("data.root=null: give the hub dataset, or the folder of a snapshot")
    if is_remote(data.root) or Path(data.root).is_dir():
        return data.root.rstrip("/")
    if data.root.count("/") != 1 or data.revision is None:
        raise DataError(f"data.root={data.root}: no such folder; to read from the hub choose data=nemotron")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        commit = HfApi().dataset_info(data.root, revision=data.revision, timeout=60).sha
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise DataError(
            f"the hub does not give data.root={data.root} at revision {data.revision} ({error}); check name and "
            "network, or download it and choose data=local data.root=FOLDER"
        ) from error
    return f"hf://datasets/{data.root}@{commit}"


def _matching(data: DataSettings, root: str, name: str) -> tuple[str, ...]:
    if name not in data.layout:
        raise DataError(f"data.subsets: {name!r} is none of {', '.join(sorted({*data.layout, *ALIASES}))}")
    files = tuple(file for pattern in data.layout[name] for file in _expanded(f"{root}/{pattern}"))
    return files


def _expanded(address: str) -> list[str]:
    """Return the files an address or a pattern names, sorted."""
    if not is_remote(address):
        found = sorted(file for file in glob.glob(address, recursive=True) if Path(file).is_file())
    else:
        found = _remote_files(address)
    if not found:
        raise DataError(f"no such file: {address}")
    return found


def _remote_files(address: str) -> list[str]:
    """Return the remote files of a pattern; only the last part may hold wildcards."""
    if not any(wildcard in address for wildcard in "*["):
        return [address]
    folder, _, pattern = address.rpartition("/")
    system, path = fsspec.core.url_to_fs(folder)
    names = [Path(entry["name"]).name for entry in system.ls(path, detail=True) if entry["type"] == "file"]
    return [f"{folder}/{name}" for name in sorted(fnmatch.filter(names, pattern))]
