"""Read row groups of Parquet files, here or remote: a sample costs what it keeps, and not the whole file."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from nemo_reasoning.data.prepare.files import Line, Span, Stream, file_errors, owned_lines
from nemo_reasoning.data.schemas.columns import IGNORED
from nemo_reasoning.errors import DataError

_READ_ANYWAY = frozenset({"license", "category", "generator", "used_in_training", "metadata"})


@lru_cache(maxsize=16)
def _open(address: str) -> Any:
    from pyarrow import parquet

    with file_errors(address):
        return parquet.ParquetFile(Stream(address), pre_buffer=True)


def count_row_groups(address: str) -> int:
    """Return the row groups of a file, from its footer."""
    count: int = _open(address).num_row_groups
    return count


def lines_of(span: Span) -> Iterator[Line]:
    """Yield the lines that a span owns, or the rows of its row group as lines of JSON.

    Columns that say nothing about what a row teaches are not fetched.
    """
    if span.row_group is None:
        yield from owned_lines(span)
        return
    file = _open(span.address)
    columns = [name for name in file.schema_arrow.names if name not in IGNORED - _READ_ANYWAY]
    with file_errors(span.address):
        rows = list(json_lines(file.read_row_group(span.row_group, columns=columns)))
    for number, row in enumerate(rows):
        yield Line(number, number, row, whole=True)


def json_lines(rows: Any) -> Iterator[bytes]:
    """Yield the rows of a table or record batch as JSON; bytes are text where they are UTF-8, maps are objects.

    Raises:
        DataError: Two columns have the same name.
    """
    names = rows.schema.names
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"two columns of a Parquet file are named {', '.join(sorted(twice))}; rename one of them")
    for row in rows.to_pylist(maps_as_pydicts="lossy"):
        yield json.dumps(row, ensure_ascii=False, default=_plain).encode("utf-8", "surrogatepass")


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a value; bytes that are no text become an object, which no layout takes for text."""
    if not isinstance(value, bytes):
        return str(value)  # dates and the like
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"bytes": len(value)}
