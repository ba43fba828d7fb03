"""A cache of folders that several processes may fill and any of them may be killed while filling."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def cached_folder(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder`, building it first if it is not there.

    The folder appears under its name only when it is complete: `build` fills a sibling that is
    renamed afterwards. A lock, which the operating system frees when its holder dies, makes other
    processes wait; what a killed holder left behind is removed by the next one.

    Args:
        folder: The finished folder.
        build: Fills the empty folder it is given.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if folder.is_dir():
            return folder
        prefix = f".{folder.name}.partial-"
        for leftover in folder.parent.glob(f"{prefix}*"):
            shutil.rmtree(leftover)
        partial = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        build(partial)
        partial.chmod(0o755)
        partial.rename(folder)
    return folder
