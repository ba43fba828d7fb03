"""Which files hold the rows of each subset, and what identifies them."""

import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import atomic_path, file_sha256
from nemo_reasoning.config.data import ALIASES, DataSettings, DataSource
from nemo_reasoning.data.builtin import training_rows
from nemo_reasoning.data.hub import PROTOCOL, pinned
from nemo_reasoning.data.prepare.files import file_errors, file_size, is_remote
from nemo_reasoning.data.prepare.formats import remote_files
from nemo_reasoning.errors import DataError

_HASHED_WHOLE = 256 * 2**20


@dataclass(frozen=True)
class Subset:
    """Rows that are counted together.

    Attributes:
        name: Such as "math"; "rows" for files of one's own.
        files: Addresses, in the order their rows are read.
        rows: Rows wanted; None for all.
        by_row_group: Whether the files are Parquet, of which single row groups are read.
    """

    name: str
    files: tuple[str, ...]
    rows: int | None
    by_row_group: bool = False


def find_subsets(data: DataSettings) -> list[Subset]:
    """Return what to read, hub files at a fixed commit; the built-in problems have no file yet.

    Raises:
        DataError: A subset is unknown, or nothing matches a path.
    """
    check_local_files(data)
    if data.source is DataSource.nemotron:
        roots = _Roots(data)
        return [Subset(name, _matching(data, roots, name), rows) for name, rows in sorted(data.wanted_rows.items())]
    if data.rows is None and data.source is DataSource.builtin:
        raise DataError("data.rows=null: the built-in problems never end; give a number of rows")
    files = tuple(file for path in data.paths for file in _expanded(path))
    return [Subset("rows", files, data.rows)]


def check_local_files(data: DataSettings) -> None:
    """Look for the files of one's own, which costs nothing, before a model is fetched for them.

    Raises:
        DataError: One is missing.
    """
    if missing := [path for path in data.filters.overlap_files if not Path(path).is_file()]:
        raise DataError(f"data.filters.overlap_files: no such file: {', '.join(missing)}")
    if data.source is DataSource.jsonl:
        for path in data.paths:
            if not is_remote(path):
                _expanded(path)


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


class _Roots:
    """Where files lie: below the root of the settings, or where an address of their own says; each pinned once."""

    def __init__(self, data: DataSettings) -> None:
        self._data = data
        self._pinned: dict[str, str] = {}

    def address(self, pattern: str) -> str:
        """Return the address of a pattern in `layout`."""
        if pattern.startswith(PROTOCOL):
            owner, name, path = pattern.removeprefix(PROTOCOL).split("/", 2)
            dataset, _, revision = name.partition("@")
            return f"{self._pin(f'{owner}/{dataset}', revision or self._data.revision or 'main')}/{path}"
        if is_remote(pattern) or Path(pattern).is_absolute():
            return pattern
        return f"{self._root()}/{pattern}"

    def _root(self) -> str:
        root = self._data.root
        if root is None:
            raise DataError("data.root=null: give the hub dataset, or the folder of a snapshot")
        if is_remote(root) or Path(root).is_dir():
            return root.rstrip("/")
        if root.count("/") != 1 or self._data.revision is None:
            raise DataError(f"data.root={root}: no such folder; to read from the hub choose data=nemotron")
        return self._pin(root, self._data.revision)

    def _pin(self, dataset: str, revision: str) -> str:
        key = f"{dataset}@{revision}"
        if key not in self._pinned:
            self._pinned[key] = pinned(dataset, revision=revision)
        return self._pinned[key]


def _matching(data: DataSettings, roots: _Roots, name: str) -> tuple[str, ...]:
    if name not in data.layout:
        raise DataError(f"data.subsets: {name!r} is none of {', '.join(sorted({*data.layout, *ALIASES}))}")
    return tuple(file for pattern in data.layout[name] for file in _expanded(roots.address(pattern)))


def _expanded(address: str) -> list[str]:
    """Return the files an address or a pattern names, sorted; a name that a file has is no pattern.

    Raises:
        DataError: There is none.
    """
    if is_remote(address):
        return remote_files(address)
    with file_errors(address):  # a name may be too long, or a folder closed
        if Path(address).is_file():
            return [address]
        if Path(address).is_dir():
            raise DataError(f"{address} is a folder; name the files in it, as in {address}/*.jsonl")
    found = sorted(file for file in glob.glob(address, recursive=True) if Path(file).is_file())
    if not found:
        raise DataError(f"no such file: {address}")
    return found


def snapshot(subsets: Sequence[Subset]) -> dict[str, tuple[int, int]]:
    """Return size and time of change of each local file, to see whether one changes while it is read."""
    files = [file for subset in subsets for file in subset.files if not is_remote(file)]
    return {file: (Path(file).stat().st_size, Path(file).stat().st_mtime_ns) for file in files}


def check_unchanged(before: Mapping[str, tuple[int, int]]) -> None:
    """Compare files with what they were.

    Raises:
        DataError: One has changed or is gone.
    """
    for file, (size, changed) in before.items():
        path = Path(file)
        if not path.is_file():
            raise DataError(f"{file} ({size:,} bytes) was removed while it was read; run again when it is back")
        now = path.stat()
        if (now.st_size, now.st_mtime_ns) != (size, changed):
            raise DataError(
                f"{file} changed while it was read: {size:,} bytes before, {now.st_size:,} now; run again when "
                "nothing writes to it"
            )
