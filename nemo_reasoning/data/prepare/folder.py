"""The folder that is prepared: found whole, found damaged, or not ours to replace."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import MANIFEST, read_manifest
from nemo_reasoning.errors import CheckpointError, DataError

QUARANTINE = "quarantine.jsonl"
SPLITS = {"train": "training.jsonl", "validation": "validation.jsonl"}
_ARRAYS = ("tokens.npy", "loss_mask.npy", "offsets.npy")
_WRITTEN = frozenset(
    [MANIFEST, QUARANTINE, "report.html", "lengths.png", *SPLITS.values()]
    + [f"{split}/{array}" for split in SPLITS for array in _ARRAYS]
)


def prepared_before(
    out: Path, *, inputs: dict[str, Any], settings: dict[str, Any], tell: Callable[[str], None]
) -> dict[str, Any] | None:
    """Return the manifest of a folder that holds what is asked for; None if it is to be written.

    Args:
        out: The folder.
        inputs: What identifies the rows.
        settings: What shapes the result.
        tell: Called with a line of text where what was prepared is damaged.

    Raises:
        DataError: Something stands there that no preparation wrote, and would be lost.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise DataError(f"{out} is a file, and the prepared rows are to stand there; move it away, or write elsewhere")
    manifest = _manifest(out)
    listed: Mapping[str, Any] = manifest.get("files", {})
    if (manifest.get("inputs"), manifest.get("settings")) == (inputs, settings):
        harm = [told for name, facts in listed.items() if (told := _harm(out / name, facts))]
        if not harm:
            return manifest
        tell(f"warning: {harm[0]} since it was prepared; all of {out} is prepared again")
    files = (str(path.relative_to(out)) for path in out.rglob("*") if path.is_symlink() or not path.is_dir())
    if foreign := next((name for name in files if name not in _WRITTEN | listed.keys()), None):
        raise DataError(
            f"{out} is to be replaced, but holds {foreign}, which no preparation wrote; move it away or write elsewhere"
        )
    return None


def _manifest(out: Path) -> dict[str, Any]:
    """Return what a folder says of itself; nothing where that cannot be read."""
    try:
        manifest = read_manifest(out)
    except CheckpointError:
        return {}
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) else {}


def _harm(path: Path, facts: Mapping[str, int]) -> str | None:
    if not path.is_file():
        return f"{path} was removed"
    found, wanted = path.stat().st_size, facts["bytes"]
    return None if found == wanted else f"{path} was changed, from {wanted:,} bytes to {found:,},"
