"""Turn compressed and columnar files into plain JSON Lines, so that any part of them can be read."""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from nemo_reasoning.artifacts import atomic_path, fingerprint
from nemo_reasoning.data.store import disk_errors

DAMAGED = b"\0damaged archive: "  # begins a line that stands for what could not be unpacked
PACKED = (".gz", ".zst", ".parquet")
_CHUNK = 2**20


@dataclass(frozen=True)
class Unpack:
    """Writes the plain JSON Lines of an address into a folder, once; a damaged end becomes a marked line."""

    folder: Path

    def __call__(self, address: str) -> Path:
        """Unpack a file and return where it went."""
        path = self.folder / f"{fingerprint(address)}.jsonl"
        if not path.exists():
            with disk_errors(path), atomic_path(path) as partial, partial.open("wb") as target:
                for chunk in _unpacked(address):
                    target.write(chunk)
        return path


def _unpacked(address: str) -> Iterator[bytes]:
    with ExitStack() as files:
        source: Any = files.enter_context(fsspec.open(address, "rb"))
        reader = {".gz": _gzip, ".zst": _zstd, ".parquet": _parquet}[Path(address).suffix]
        yield from reader(source)


def _gzip(source: BinaryIO) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=source) as plain:
            while chunk := plain.read(_CHUNK):
                yield chunk
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield _damage(error)


def _zstd(source: BinaryIO) -> Iterator[bytes]:
    """Yield every frame; the library's own readers stop silently where a file was cut."""
    import zstandard

    def frame() -> Any:
        return zstandard.ZstdDecompressor().decompressobj()

    current, begun = frame(), False
    try:
        while data := source.read(_CHUNK):
            while data:
                yield current.decompress(data)
                data, begun = current.unused_data, True
                if current.eof:
                    current, begun = frame(), False
    except zstandard.ZstdError as error:
        yield _damage(error)
        return
    if begun:
        yield _damage(EOFError("the last frame is cut"))


def _parquet(source: BinaryIO) -> Iterator[bytes]:
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(source).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                yield json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n"
    except (pyarrow.ArrowException, OSError) as error:
        yield _damage(error)


def _damage(error: Exception) -> bytes:
    return b"\n" + DAMAGED + str(error).replace("\n", " ").encode() + b"\n"
