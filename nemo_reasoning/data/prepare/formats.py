"""What a file is, told by its bytes and not by its name; whatever holds no rows is refused by name."""

import fnmatch
import gzip
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

import fsspec

from nemo_reasoning.data.prepare.files import file_size, is_remote
from nemo_reasoning.errors import DataError

_HEAD, _TAIL = 64 * 2**10, 2**20


class Format(Enum):
    """How a file holds rows."""

    lines = "JSON Lines"
    array = "JSON array"
    gzip = "gzip"
    zstd = "zstd"
    bz2 = "bzip2"
    xz = "xz"
    parquet = "Parquet"


_MAGIC = {
    b"\x1f\x8b": Format.gzip,
    b"\x28\xb5\x2f\xfd": Format.zstd,
    b"BZh": Format.bz2,
    b"\xfd7zXZ\x00": Format.xz,
    b"PAR1": Format.parquet,
}
_ENDINGS = {
    ".gz": Format.gzip,
    ".zst": Format.zstd,
    ".bz2": Format.bz2,
    ".xz": Format.xz,
    ".parquet": Format.parquet,
}
# Beginnings of files that hold no rows, and what to do about them.
_FOREIGN = {
    b"version https://git-lfs": "is a Git LFS pointer and not the file itself; run git lfs pull, or download it again",
    b"ARROW1": "is an Arrow file; save it as Parquet or JSON Lines",
    b"PK\x03\x04": "is a zip archive; unpack it",
    b"7z\xbc\xaf": "is a 7-Zip archive; unpack it",
    b"Rar!": "is a RAR archive; unpack it",
    b"\x80\x04\x95": "is a Python pickle; save its rows as JSON Lines",
    b"\x93NUMPY": "is a NumPy array; save its rows as JSON Lines",
    b"SQLite format 3": "is a SQLite database; save its rows as JSON Lines",
    b"%PDF": "is a PDF; it holds no rows",
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_HTML = re.compile(rb"\s*<(?:!doctype|html|head|\?xml)", re.IGNORECASE)
_JSON_START = re.compile(rb"^\s*\{", re.MULTILINE)


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
        told = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{address} cannot be read: {told[:300]}; check the address and the network") from error


def format_of(address: str) -> Format:
    """Tell how a file holds its rows: a local one by its first and last bytes, a remote one by its name.

    Raises:
        DataError: It is empty, cut, or holds no rows; the message names what it is, and its size.
    """
    with file_errors(address):
        size = file_size(address)
        if not size:
            raise DataError(f"{address} is empty (0 bytes); download or write it again")
        if is_remote(address):
            return _ENDINGS.get(Path(address).suffix, Format.lines)
        with Path(address).open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
    named = f"{address} ({size:,} bytes)"
    for beginning, what in _FOREIGN.items():
        if head.startswith(beginning):
            raise DataError(f"{named} {what}")
    for magic, known in _MAGIC.items():
        if head.startswith(magic):
            if known is Format.parquet and not tail.endswith(b"PAR1"):
                raise DataError(f"{named} is a Parquet file that was cut: its end is missing; download it again")
            return known
    return _text_format(head, named)


def _text_format(head: bytes, named: str) -> Format:
    if head.startswith(_UTF16) or b"\0" in head[:4]:
        raise DataError(f"{named} is UTF-16 or UTF-32 text; save it as UTF-8, as with iconv -t UTF-8")
    if head[257:262] == b"ustar":
        raise DataError(f"{named} is a tar archive; unpack it")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise DataError(f"{named} holds nothing but blanks")
    if _HTML.match(text):
        raise DataError(f"{named} is an HTML or XML page, perhaps of a login; download the file itself")
    first, _, rest = text.partition(b"\n")
    if text.startswith(b"["):
        return Format.array if not _parses(first) or not rest.strip() else Format.lines
    if first.strip() == b"{" and not _parses(text):
        raise DataError(f"{named} is one JSON object over several lines; write each row on a line of its own")
    if text.startswith(b"{") or _JSON_START.search(text) or b'"' in first[:1]:
        return Format.lines
    if b"," in first or b"\t" in first:
        raise DataError(f"{named} looks like CSV, whose first line is {_shown(first)}; convert it to JSON Lines")
    if b"\0" in head:
        raise DataError(f"{named} is binary; rows are read from JSON Lines, JSON arrays and Parquet")
    raise DataError(f"{named} is not JSON Lines: its first line is {_shown(first)}")


def _parses(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _shown(line: bytes) -> str:
    return repr(line[:60].decode("utf-8", "replace"))


def cut_line(address: str) -> int | None:
    """Return how many bytes of an unfinished row a local file of JSON Lines ends with; None if it ends well."""
    if is_remote(address):
        return None
    with Path(address).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    last = tail.rpartition(b"\n")[2]
    if not last.strip() or (len(last) == len(tail) < size) or _parses(last):
        return None
    return len(last) if last.lstrip().startswith(b"{") else None


def opener_of(kind: Format) -> Callable[..., object]:
    """Return what opens a compressed file of the standard library's kinds."""
    import bz2
    import lzma

    openers: dict[Format, Callable[..., object]] = {Format.gzip: gzip.open, Format.bz2: bz2.open, Format.xz: lzma.open}
    return openers[kind]


def remote_files(address: str) -> list[str]:
    """Return the remote files that an address or a pattern names, sorted.

    Raises:
        DataError: There is none, or the file system cannot be asked.
    """
    with file_errors(address):
        system, path = fsspec.core.url_to_fs(address)
        protocol = address.partition("://")[0]
        folder, _, pattern = path.rpartition("/")
        if not any(sign in folder for sign in "*?[") and any(sign in pattern for sign in "*?["):
            names = [entry["name"] for entry in system.ls(folder, detail=True) if entry["type"] == "file"]
            found = sorted(name for name in names if fnmatch.fnmatch(name.rpartition("/")[2], pattern))
        elif any(sign in path for sign in "*?["):
            found = sorted(system.glob(path))
        elif protocol not in ("http", "https") and system.isdir(path):
            raise IsADirectoryError(address)
        else:
            found = [path] if system.exists(path) else []
        if not found:
            raise FileNotFoundError(address)
        return [name if "://" in name else f"{protocol}://{name}" for name in found]
