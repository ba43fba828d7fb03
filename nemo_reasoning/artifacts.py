"""Files that stages hand to each other: atomic writes, cached folders, hashes and `manifest.json`."""

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from nemo_reasoning import __version__
from nemo_reasoning.errors import CheckpointError

if TYPE_CHECKING:
    from jinja2 import Template

MANIFEST = "manifest.json"
_RECORDED = ("torch", "nemo_toolkit", "megatron-core", "lightning", "transformers", "tokenizers", "peft")
_MODULES = {"megatron-core": "megatron.core", "nemo_toolkit": "nemo", "transformer-engine": "transformer_engine"}

_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "this user's quota of the disk is used up",
    errno.EFBIG: "a file became larger than it may (`ulimit -f`, or a limit of its file system)",
}
_REFUSED = {
    errno.EACCES: "give this user access to it, or choose another place",
    errno.EPERM: "give this user access to it, or choose another place",
    errno.EROFS: "choose another place",
    errno.EIO: "look for faults of its disk in the system's log, or choose another place",
    errno.ESTALE: "its network drive was mounted anew; run the same command again",
    errno.EMFILE: "raise the number of files a process may have open, `ulimit -n`",
    errno.ENFILE: "close other programs, or raise the number of open files of the machine, fs.file-max",
    errno.EEXIST: "something else is in its place; remove that, or choose another place",
    errno.EISDIR: "it is a folder where a file belongs; remove it, or choose another place",
    errno.ENOTDIR: "a part of this path is no folder; choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle; choose another place",
}


def no_room(error: BaseException | None) -> str | None:
    """Return in words why nothing more could be written, if that led to an error, as libraries raise their own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return _NO_ROOM[error.errno]
        if "No space left on device" in str(error):
            return _NO_ROOM[errno.ENOSPC]
        if "] . unexpected pos " in str(error):  # torch's, which keeps nothing of the system's
            return "a file could not be written whole, mostly for a full disk"
        error = error.__cause__ or error.__context__
    return None


def storage_problem(error: BaseException, *, places: Sequence[Path]) -> str | None:
    """Return in words, with the remedy, what the operating system refused about a file; None for any other error.

    Args:
        error: What was raised.
        places: Where files may have been written, to tell the room that is left there.
    """
    if full := no_room(error):
        there = [next(one for one in (place, *place.absolute().parents) if one.exists()) for place in places]
        said = ", ".join(f"{shutil.disk_usage(place).free / 1e6:,.1f} MB in {place}" for place in dict.fromkeys(there))
        return f"{full}; free: {said}. Make room"
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename is not None:
        return f"cannot use {error.filename} ({error.strerror}); {_REFUSED[error.errno]}"
    return None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` if the block succeeds, else remove it.

    A reader therefore sees the old file or the new one, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON with a final newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_steps(path: Path, *, having: str = "") -> tuple[list[dict[str, Any]], int]:
    """Return the records of a JSON Lines file that name a step, in their order, and the number of other lines.

    A last line without its end, as a kill leaves it, is neither; a missing file has no lines.

    Args:
        path: The file.
        having: Lines without this text are not looked at.
    """
    if not path.is_file():
        return [], 0
    lines = [line for line in path.read_bytes().split(b"\n")[:-1] if having.encode() in line]
    records = [record for line in lines if (record := _step_record(line)) is not None]
    return records, len(lines) - len(records)


def _step_record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and type(record.get("step")) is int else None


def cached_folder(
    folder: Path, build: Callable[[Path], None], *, current: Callable[[Path], bool] = Path.is_dir
) -> Path:
    """Return `folder`, building it first if it is not there, or not what is wanted now.

    The folder appears under its name only when it is complete: `build` fills a sibling that is
    renamed afterwards. A lock, which the operating system frees when its holder dies, makes other
    processes wait; what a killed holder left behind is removed by the next one.

    Args:
        folder: The finished folder.
        build: Fills the empty folder it is given.
        current: Whether what lies at `folder`, if anything does, is what is wanted.
    """
    if current(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if current(folder):
            return folder
        prefix = f".{folder.name}.partial-"
        for leftover in [path for path in folder.parent.iterdir() if path.name.startswith(prefix)]:
            shutil.rmtree(leftover)
        partial = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        try:
            build(partial)
        except BaseException:
            shutil.rmtree(partial)
            raise
        partial.chmod(0o755)
        if folder.is_dir():
            shutil.rmtree(folder)
        partial.rename(folder)
    return folder


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Return 16 hexadecimal digits that identify a JSON-serialisable value, whatever its key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def installed_version(name: str) -> str | None:
    """Return the version of a distribution, None where it is not known.

    What a loaded package says of itself goes before the metadata: Megatron-Core lies on the path of some images without
    any, or with that of another release.
    """
    module = sys.modules.get(_MODULES.get(name, ""))
    try:
        return getattr(module, "__version__", None) or metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def installed_versions(names: Sequence[str] = _RECORDED) -> dict[str, str]:
    """Return the installed version of each distribution; one that is absent is left out."""
    found = {name: installed_version(name) for name in names}
    return {"nemo-reasoning": __version__} | {name: version for name, version in found.items() if version is not None}


def write_manifest(
    folder: Path,
    *,
    stage: str,
    inputs: Mapping[str, Any],
    settings: Mapping[str, Any],
    counts: Mapping[str, Any],
    produced: Sequence[Path],
    versions: Sequence[str] = _RECORDED,
) -> dict[str, Any]:
    """Describe what a stage left in `folder` as `manifest.json`, and return that description.

    Args:
        folder: Where the stage wrote; the manifest goes there last, so its presence means success.
        stage: Name of the stage, such as "prepare" or "export".
        inputs: What went in, with hashes or revisions.
        settings: The resolved settings of the stage.
        counts: Rows, tokens, quarantined rows and the like.
        produced: Files below `folder`; each is recorded with size in bytes and SHA-256.
        versions: Distributions whose versions matter to the stage.
    """
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        hashes = pool.map(file_sha256, produced)
        files = {
            str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256}
            for path, sha256 in zip(produced, hashes, strict=True)
        }
    manifest = {
        "stage": stage,
        "inputs": dict(inputs),
        "settings": dict(settings),
        "counts": dict(counts),
        "versions": installed_versions(versions),
        "files": files,
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a finished stage.

    Raises:
        CheckpointError: `folder` holds no readable manifest, so its stage did not finish.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {MANIFEST}: its stage did not finish; run it again") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); delete {folder} and run the stage again") from error
    return manifest


def page_template(package: str, name: str) -> "Template":
    """Return a room's HTML template: text is escaped, a name without a value is an error.

    Args:
        package: The package in whose `templates` folder it lies.
        name: Its file.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return pages.get_template(name)


def portable(value: Any) -> Any:
    """Return what is to be published, plain data, with the last name alone of every local place among keys and values.

    Where a file lies means nothing on another machine and shows who made it. Keys that become equal are numbered.
    """
    if isinstance(value, str):
        return _last_name(value)
    if isinstance(value, Mapping):
        found = dict[str, Any]()
        for key, inner in value.items():
            name = wanted = _last_name(key)
            number = 1
            while name in found:
                number += 1
                name = f"{wanted} ({number})"
            found[name] = portable(inner)
        return found
    return [portable(inner) for inner in value] if isinstance(value, list | tuple) else value


def _last_name(text: str) -> str:
    """Return the last name of a local place: absolute, below a home or another folder, or one that is there."""
    place = re.sub(r"\A(?:file|local)://", "", text)
    local = place.startswith(("/", "~", "./", "../")) or (
        "://" not in place and (os.path.lexists(place) or (glob.has_magic(place) and any(glob.iglob(place))))
    )
    return Path(place).name or text if local else text
