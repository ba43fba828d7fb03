"""What a file is, told by its bytes and not by its name; whatever holds no rows is refused by name."""

import fnmatch
import gzip
import json
import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import fsspec

from nemo_reasoning.data.prepare.files import file_errors, file_size, is_remote, read_bytes
from nemo_reasoning.errors import DataError

HEAD, _TAIL, _REMOTE_HEAD = 64 * 2**10, 2**20, 4 * 2**10


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
    b"PARE": "is an encrypted Parquet file; save it without encryption",
    b"\x04\x22\x4d\x18": "is an lz4 file; unpack it, or pack it with gzip or zstd",
    b"\xff\x06\x00\x00sNaPpY": "is a snappy file; unpack it, or pack it with gzip or zstd",
    b"\x5d\x00\x00": "is an lzma file of the older kind; unpack it, or pack it with xz",
    b"PK\x03\x04": "is a zip archive; unpack it",
    b"PK\x05\x06": "is an empty zip archive",
    b"7z\xbc\xaf": "is a 7-Zip archive; unpack it",
    b"Rar!": "is a RAR archive; unpack it",
    b"\x80\x04\x95": "is a Python pickle; save its rows as JSON Lines",
    b"\x93NUMPY": "is a NumPy array; save its rows as JSON Lines",
    b"SQLite format 3": "is a SQLite database; save its rows as JSON Lines",
    b"%PDF": "is a PDF; it holds no rows",
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_HTML = re.compile(rb"\s*<(?:!doctype|html|head|\?xml)", re.IGNORECASE)
_SIGNS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # that no text has
_JSON_START = re.compile(rb"^\s*\{", re.MULTILINE)


def format_of(address: str) -> Format:
    """Tell how a file holds its rows: by its first and last bytes, or by its name if it is remote and packed.

    Raises:
        DataError: It is empty, cut, or holds no rows; the message names what it is, and its size.
    """
    with file_errors(address):
        size = file_size(address)
        if not size:
            raise DataError(f"{address} is empty (0 bytes); download or write it again")
        if is_remote(address):
            return _remote_format(address, size)
        with Path(address).open("rb") as file:
            head = file.read(HEAD)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
    named = f"{address} ({size:,} bytes)"
    for magic, known in _MAGIC.items():
        if head.startswith(magic):
            if known is Format.parquet and not tail.endswith(b"PAR1"):
                raise DataError(f"{named} is a Parquet file that was cut: its end is missing; download it again")
            return known
    return text_format(head, named)


def _remote_format(address: str, size: int) -> Format:
    """Tell how a remote file holds its rows: by its name if it is packed, else by its first bytes."""
    known = _ENDINGS.get(Path(address).suffix)
    if known is not None:
        return known
    return text_format(read_bytes(address, 0, min(size, _REMOTE_HEAD)), f"{address} ({size:,} bytes)")


def text_format(head: bytes, named: str) -> Format:
    """Tell how text holds rows, by its beginning.

    Raises:
        DataError: It holds none; the message begins with `named`.
    """
    _check_binary(head, named)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise DataError(f"{named} holds nothing but blanks")
    if _HTML.match(text):
        raise DataError(f"{named} is an HTML or XML page, perhaps of a login; download the file itself")
    first, _, rest = text.partition(b"\n")
    if text.startswith(b"["):
        return Format.array if not _parses(first) or not rest.strip() else Format.lines
    if first.strip() == b"{" and rest.strip():
        raise DataError(f"{named} is one JSON object over several lines; write each row on a line of its own")
    if b"\r" in first.rstrip() and not rest and text.startswith(b"{") and not _parses(first):
        raise DataError(f"{named} ends its lines with carriage returns; convert it, as with tr '\\r' '\\n'")
    if text.startswith(b"{") or _JSON_START.search(text) or b'"' in first[:1]:
        return Format.lines
    if b"," in first or b"\t" in first:
        raise DataError(f"{named} looks like CSV, whose first line is {_shown(first)}; convert it to JSON Lines")
    raise DataError(f"{named} is not JSON Lines: its first line is {_shown(first)}")


def _check_binary(head: bytes, named: str) -> None:
    for beginning, what in _FOREIGN.items():
        if head.startswith(beginning):
            raise DataError(f"{named} {what}")
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{named} is {kind.value}; unpack it once")
    if head[257:262] == b"ustar":
        raise DataError(f"{named} is a tar archive; unpack it")
    if head.startswith(_UTF16) or b"\0\0" in (head[:4:2], head[1:4:2]):
        raise DataError(f"{named} is UTF-16 or UTF-32 text; save it as UTF-8, as with iconv -t UTF-8")
    if len(_SIGNS.findall(head.partition(b"\n")[0][:4096])) > 1:
        raise DataError(f"{named} is binary; rows are read from JSON Lines, JSON arrays and Parquet")


def _parses(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
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
    if not last.strip() or (len(last) == len(tail) < size) or _begins_whole(last):
        return None
    return len(last) if last.lstrip().startswith(b"{") else None


def _begins_whole(line: bytes) -> bool:
    """Tell whether a line begins with a whole JSON value; what follows it was not cut but written so."""
    try:
        json.JSONDecoder().raw_decode(line.decode("utf-8-sig").strip())
    except (ValueError, RecursionError):
        return False
    return True


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
