"""The files of a benchmark: from the Hugging Face hub or a local copy, as CSV, JSON Lines or Parquet."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nemo_reasoning.data.hub import hub_errors
from nemo_reasoning.errors import DataError


class FileRow(NamedTuple):
    """A row and where it stands.

    Attributes:
        values: By column; of a CSV file without a header by "0", "1" and so on.
        file: Path of its file.
        number: In that file, from 0.
    """

    values: dict[str, Any]
    file: Path
    number: int


def find_files(source: str, patterns: Sequence[str], *, revision: str | None) -> list[Path]:
    """Return the files of a data set that match, sorted within each pattern.

    Args:
        source: A directory with the files as the hub has them (or all in one folder), or a hub data set.
        patterns: Paths in the data set, such as "all/test-*.parquet".
        revision: Of a hub data set; None for its main branch.

    Raises:
        DataError: The data set is gated, unknown or out of reach, or a pattern matches nothing.
    """
    folder = Path(source) if Path(source).is_dir() else _download(source, patterns, revision)
    found = []
    for pattern in patterns:
        matches = sorted(folder.glob(pattern)) or sorted(folder.glob(Path(pattern).name))
        if not matches:
            raise DataError(f"{source} holds no {pattern}; point source at a copy of the data set that does")
        found += matches
    return found


def _download(source: str, patterns: Sequence[str], revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(source, remedy=f"download {', '.join(patterns)} and give its directory as source"):
        return Path(snapshot_download(source, repo_type="dataset", revision=revision, allow_patterns=list(patterns)))


def read_rows(files: Sequence[Path], *, header: bool = True) -> Iterator[FileRow]:
    """Yield every row of some files.

    Args:
        files: By their ending .csv, .jsonl or .parquet.
        header: Whether the first line of a CSV file names its columns.

    Raises:
        DataError: A file has another ending or cannot be read.
    """
    for file in files:
        readers = {".csv": _csv_header if header else _csv_bare, ".jsonl": _jsonl, ".parquet": _parquet}
        reader = readers.get(file.suffix)
        if reader is None:
            raise DataError(f"{file}: only {', '.join(readers)} can be read")
        try:
            for number, values in enumerate(reader(file)):
                yield FileRow(values, file, number)
        except (ValueError, RecursionError, csv.Error) as error:  # of JSON, of UTF-8, and of Parquet through pyarrow
            raise DataError(f"{file} cannot be read: {error}") from error


def _csv_header(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        yield from csv.DictReader(lines)


def _csv_bare(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for cells in csv.reader(lines):
            yield {str(column): cell for column, cell in enumerate(cells)}


def _jsonl(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet

    for batch in parquet.ParquetFile(file).iter_batches():
        yield from batch.to_pylist()
