"""Read stretches of files, on this machine or behind any address fsspec opens."""

import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import fsspec

from nemo_reasoning.errors import DataError

LONGEST_LINE = 16 * 2**20
_TAIL = 64 * 2**10
_ATTEMPTS, _FIRST_PAUSE = 5, 0.5


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `end` of a file; it owns the rows that begin there.

    Attributes:
        address: Path or address of the file.
        size: Bytes of the whole file.
        start: First byte.
        end: Byte after the last.
        row_group: Of a Parquet file, in place of bytes.
    """

    address: str
    size: int
    start: int
    end: int
    row_group: int | None = None


class Line(NamedTuple):
    """A line of a file, without its end.

    Attributes:
        offset: Byte of the file it begins at.
        number: Lines before it that begin in the same span.
        content: Its bytes, cut where longer than any row may be.
        whole: False if it was cut.
    """

    offset: int
    number: int
    content: bytes
    whole: bool


class _Reader(Protocol):
    def read(self, start: int, end: int) -> bytes: ...


class _LocalFile:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY)

    def read(self, start: int, end: int) -> bytes:
        pieces = []
        while start < end and (piece := os.pread(self._file, end - start, start)):
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


class _RemoteFile:
    """Fetches ranges; what a broken connection left open is asked for again, in growing intervals."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._file: Any = None

    def _open(self) -> Any:
        system, path = fsspec.core.url_to_fs(self.address)
        return system.open(path, "rb", cache_type="none")  # fetches what is read and no more

    def read(self, start: int, end: int) -> bytes:
        for attempt in range(_ATTEMPTS):
            try:
                self._file = self._file or self._open()
                self._file.seek(start)
                content = bytes(self._file.read(end - start))
                if len(content) == end - start:
                    return content
                failure: Exception = EOFError(f"got {len(content)} of {end - start} bytes")
            except Exception as error:  # noqa: BLE001 - each file system has exceptions of its own
                if (refusal := _refusal(error)) is not None and "for now" not in refusal:
                    raise DataError(f"{self.address} {refusal}") from error
                failure = error
            self._file = None
            time.sleep(_FIRST_PAUSE * 2**attempt)
        if (refusal := _refusal(failure)) is not None:
            raise DataError(f"{self.address} {refusal}") from failure
        raise DataError(
            f"{self.address}: bytes {start} to {end} could not be read in {_ATTEMPTS} attempts ({failure}); "
            "run again to continue where it stopped"
        ) from failure


@lru_cache(maxsize=16)
def _reader(address: str) -> _Reader:
    return _RemoteFile(address) if is_remote(address) else _LocalFile(address)


@contextmanager
def file_errors(address: str) -> Iterator[None]:
    """Turn whatever a file system raises into one line with its cause and a remedy.

    Raises:
        DataError: The file cannot be opened or read.
    """
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"no such file: {address}") from error
    except IsADirectoryError as error:
        raise DataError(f"{address} is a folder; name the files in it, as in {address}/*.jsonl") from error
    except PermissionError as error:
        raise DataError(f"{address} cannot be read: permission denied; change its owner or mode") from error
    except ImportError as error:
        raise DataError(f"{address} needs a package that is not installed: {error}") from error
    except Exception as error:
        if (refusal := _refusal(error)) is not None:
            raise DataError(f"{address} {refusal}") from error
        told = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{address} cannot be read: {told[:300]}; check the address and the network") from error


def _refusal(error: Exception) -> str | None:
    """Return what a server that will not give a file says, and the remedy; None if asking again may help."""
    status = getattr(getattr(error, "response", None), "status_code", getattr(error, "status", None))
    refusals = {
        401: "is not open to everyone: accept its terms on its page, then set HF_TOKEN to a token of the same account",
        403: "is not open to this account: accept its terms on its page, then set HF_TOKEN to a token of that account",
        404: "is not there: check its name and revision",
        410: "is not there any more: check its name and revision",
        429: "is refused for now, for too many requests: wait some minutes, or set HF_TOKEN, and run again",
    }
    return refusals.get(status) if isinstance(status, int) else None


def is_remote(address: str) -> bool:
    """Tell whether an address is no path on this machine."""
    return "://" in address


def file_size(address: str) -> int:
    """Return the bytes of a file."""
    if not is_remote(address):
        return Path(address).stat().st_size
    with file_errors(address):
        system, path = fsspec.core.url_to_fs(address)
        return int(system.size(path))


def read_bytes(address: str, start: int, end: int) -> bytes:
    """Return a stretch of a file, here or remote.

    Raises:
        DataError: It cannot be read.
    """
    return _reader(address).read(start, end)


class Stream(io.RawIOBase):
    """A file, here or remote, as libraries read it: only what they ask for is fetched, again if it breaks off."""

    def __init__(self, address: str) -> None:
        """Open a file at its beginning."""
        self._address, self._size, self._place = address, file_size(address), 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be read from any place."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read as much as there is and fits."""
        data = read_bytes(self._address, self._place, min(self._size, self._place + len(buffer)))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def owned_lines(span: Span) -> Iterator[Line]:
    """Yield the lines that begin in a span, the last one to its end, which may lie behind the span.

    Raises:
        DataError: The file cannot be read, or has shrunk.
    """
    reader, base = _reader(span.address), max(span.start - 1, 0)
    end = min(span.end, span.size)
    data = reader.read(base, end)  # from one byte before, which tells whether a line begins at `start`
    if len(data) < end - base:
        raise DataError(f"{span.address} has become shorter than its {span.size} bytes; run again from the start")
    first = data.find(b"\n") + 1 if span.start else 0
    if (span.start and not first) or first == len(data):
        return
    lines = data[first:].split(b"\n")
    if lines[-1]:
        lines[-1] += _rest_of_line(reader, end, min(span.size, end + LONGEST_LINE))
    else:
        lines.pop()
    offset = base + first
    for number, content in enumerate(lines):
        yield Line(offset, number, content[:LONGEST_LINE], whole=len(content) <= LONGEST_LINE)
        offset += len(content) + 1


def _rest_of_line(reader: _Reader, start: int, limit: int) -> bytes:
    """Return the bytes from `start` up to the next line end, or up to `limit`."""
    pieces = []
    while start < limit:
        piece = reader.read(start, min(limit, start + _TAIL))
        content, line_end, _ = piece.partition(b"\n")
        pieces.append(content)
        if line_end:
            break
        start += len(piece)
    return b"".join(pieces)
