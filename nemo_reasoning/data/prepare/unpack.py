"""Turn files that cannot be read from any place into plain JSON Lines, which can."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from nemo_reasoning.artifacts import atomic_path, fingerprint, write_text
from nemo_reasoning.data.prepare.files import file_errors, file_size
from nemo_reasoning.data.prepare.formats import HEAD, Format, opener_of, text_format
from nemo_reasoning.data.prepare.row_groups import json_lines
from nemo_reasoning.data.store import disk_errors

DAMAGED = b"\0damaged archive: "  # begins a line that stands for what could not be unpacked
_CHUNK, _SLICE = 2**20, 2**12  # a slice of zstd unpacks to 128 MB at most
_LONGEST_WINDOW = 2**31  # zstd --long=31


@dataclass(frozen=True)
class Unpacked:
    """The plain JSON Lines of a file.

    Attributes:
        path: Where they are.
        damage: What is missing, in words; None if nothing.
    """

    path: Path
    damage: str | None


@dataclass(frozen=True)
class Unpack:
    """Writes the whole rows of a file into a folder, once; what is missing becomes a marked line."""

    folder: Path

    def __call__(self, job: tuple[str, Format]) -> Unpacked:
        """Unpack (address, format)."""
        address, kind = job
        path = self.folder / f"{fingerprint(address)}.jsonl"
        note = path.with_suffix(".damage")
        if not path.exists():
            with disk_errors(path), atomic_path(path) as partial:
                damage = _write(address, kind, partial)
                if damage:
                    write_text(note, damage)
        return Unpacked(path, note.read_text(encoding="utf-8") if note.exists() else None)


def _write(address: str, kind: Format, target: Path) -> str | None:
    """Write the whole rows of a file and return what is missing."""
    rows, whole, damage = 0, 0, None  # rows, and the bytes that they take
    with target.open("wb") as lines:
        try:
            for chunk in _lines(address, kind):
                if ends := chunk.count(b"\n"):
                    rows, whole = rows + ends, lines.tell() + chunk.rindex(b"\n") + 1
                lines.write(chunk)
        except _CutError as error:
            size = f"{file_size(address):,} bytes"
            missing = (
                f"{error.missing:,} bytes of rows are missing" if error.missing else "how much is missing is unknown"
            )
            damage = f"{address} ({size}) is cut or damaged after {rows:,} whole rows; {missing} ({error})"
            lines.seek(whole)
            lines.truncate()
            lines.write(DAMAGED + damage.encode() + b"\n")
    return damage


class _CutError(Exception):
    """A file ends before its rows do; `missing` is how many bytes are known to be lost, 0 if nobody knows."""

    def __init__(self, why: object, *, missing: int = 0) -> None:
        super().__init__(" ".join(str(why).split()))
        self.missing = missing


def _lines(address: str, kind: Format) -> Iterator[bytes]:
    """Yield JSON Lines in pieces.

    Raises:
        DataError: What a compressed file holds are no rows.
    """
    chunks = _chunks(address, kind)
    if kind in (Format.parquet, Format.array):
        return chunks
    head, failure = bytearray(), None
    try:
        while len(head) < HEAD and (chunk := next(chunks, None)) is not None:
            head += chunk
    except _CutError as error:
        failure = error
    if head or failure is None:
        inner = text_format(bytes(head[:HEAD]), f"{address} ({file_size(address):,} bytes), unpacked,")
        if inner is Format.array:
            return _array(chain([bytes(head)], _rest(chunks, failure)))
    return chain([bytes(head)], _rest(chunks, failure))


def _rest(chunks: Iterator[bytes], failure: _CutError | None) -> Iterator[bytes]:
    if failure is not None:
        raise failure
    yield from chunks


def _chunks(address: str, kind: Format) -> Iterator[bytes]:
    with file_errors(address):
        source: Any = fsspec.open(address, "rb").open()
    with source:
        if kind is Format.parquet:
            yield from _parquet(source)
        elif kind is Format.zstd:
            yield from _zstd(source)
        elif kind is Format.array:
            yield from _array(iter(lambda: source.read(_CHUNK), b""))
        else:
            yield from _compressed(source, kind)


def _compressed(source: BinaryIO, kind: Format) -> Iterator[bytes]:
    """Yield the content of a gzip, bzip2 or xz file."""
    import lzma

    try:
        plain: Any = opener_of(kind)(source)
        while chunk := plain.read1(_CHUNK):
            yield chunk
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise _CutError(error) from error


def _content_size(head: bytes) -> int:
    """Return the bytes that a frame of zstd holds, 0 where it does not say, or its beginning is cut here."""
    import zstandard

    try:
        return max(0, int(zstandard.frame_content_size(head)))
    except zstandard.ZstdError:
        return 0


def _zstd(source: BinaryIO) -> Iterator[bytes]:
    """Yield every frame; the library's own readers stop silently where a file was cut."""
    import zstandard

    def frame() -> Any:
        return zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW).decompressobj()

    current, begun, wanted, got = frame(), False, 0, 0
    try:
        while chunk := source.read(_CHUNK):
            for first in range(0, len(chunk), _SLICE):
                data = chunk[first : first + _SLICE]
                while data:
                    if not begun:
                        wanted, got = _content_size(data), 0
                    plain = current.decompress(data)
                    got += len(plain)
                    yield plain
                    data, begun = current.unused_data, True
                    if current.eof:
                        current, begun = frame(), False
    except zstandard.ZstdError as error:
        raise _CutError(error, missing=max(0, wanted - got)) from error
    if begun:
        raise _CutError("the last frame is cut", missing=max(0, wanted - got))


def _parquet(source: BinaryIO) -> Iterator[bytes]:
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(source).iter_batches(batch_size=256):
            for row in json_lines(batch):
                yield row + b"\n"
    except (pyarrow.ArrowException, OSError) as error:
        raise _CutError(error) from error


def _array(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield each element of a JSON array as a line, holding one element at a time."""
    decoder, text, pending = json.JSONDecoder(), "", b""
    begun = False
    while True:
        data = next(chunks, b"")
        decoded, pending = _utf8(pending + data)
        text += decoded
        if not begun:
            text, begun = text.lstrip("\ufeff \t\r\n").removeprefix("["), True
        while text := text.lstrip(", \t\r\n"):
            if text.startswith("]"):
                _check_end(text[1:], chunks)
                return
            try:
                value, end = decoder.raw_decode(text)
            except (ValueError, RecursionError) as error:
                if data and isinstance(error, json.JSONDecodeError):
                    break  # perhaps the element goes on
                raise _CutError(f"no JSON at {text[:30]!r}: {error}") from error
            if end == len(text) and data:
                break  # perhaps a number goes on
            yield json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
            text = text[end:]
        if not data:
            raise _CutError("the array is not closed")


def _check_end(text: str, chunks: Iterator[bytes]) -> None:
    """Refuse what stands behind the end of an array."""
    rest = text.strip() or next((chunk.strip().decode("utf-8", "replace") for chunk in chunks if chunk.strip()), "")
    if rest:
        raise _CutError(f"{rest[:30]!r} stands behind the end of the array")


def _utf8(data: bytes) -> tuple[str, bytes]:
    """Return the text of whole characters, and the bytes of one that goes on."""
    for cut in range(min(4, len(data) + 1)):
        try:
            return data[: len(data) - cut].decode(), data[len(data) - cut :]
        except UnicodeDecodeError as error:
            if error.end < len(data) - 3:
                raise _CutError(f"not UTF-8: {error}") from error
    raise _CutError("not UTF-8")
