"""Time and memory that a run took, all of its starts together."""

import json
import time
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import write_json
from nemo_reasoning.training.memory_stats import rss_peak
from nemo_reasoning.training.run_dir import Run

USAGE_FILE = Path("evaluation", "run.json")  # where the report looks for it


class Usage:
    """What a start of a run takes, added to what the earlier ones took.

    Attributes:
        began: `time.monotonic()` when this start began.
        earlier: Seconds of the starts before it.
    """

    def __init__(self, run: Run, *, began: float) -> None:
        """Read what was recorded; a run that begins anew forgets it."""
        found = {} if run.settings.restart else read_usage(run.path)
        self._folder, self.began = run.path, began
        self.earlier: float = found.get("wall_seconds", 0.0)
        self._peak: int = found.get("peak_rss_bytes", 0)

    def record(self) -> None:
        """Write down what all starts took until now; nothing if the folder was moved meanwhile."""
        if self._folder.is_dir():
            seconds = self.earlier + time.monotonic() - self.began
            found = {"wall_seconds": seconds, "peak_rss_bytes": max(self._peak, rss_peak())}
            write_json(self._folder / USAGE_FILE, found)


def read_usage(folder: Path) -> dict[str, Any]:
    """Return `wall_seconds` and `peak_rss_bytes` of a run; nothing where that is not known."""
    try:
        found = json.loads((folder / USAGE_FILE).read_text(encoding="utf-8"))
        return {"wall_seconds": float(found["wall_seconds"]), "peak_rss_bytes": int(found["peak_rss_bytes"])}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
