"""Prepare from a hub that refuses in many ways, and print as JSON what a user is told: `refused_runs.py FOLDER`."""

import json
import os
import sys
from pathlib import Path

from hub_server import Hub, serving

PARQUET = "data.layout.math=[data/math-*.parquet]"
# What the hub answers to which paths, how often, and other settings.
CASES: dict[str, tuple[dict[str, tuple[int, int]], tuple[str, ...]]] = {
    "fine": ({}, ()),
    "gated": ({}, ()),
    "account without access": ({"/revision/": (403, 9)}, ()),
    "wrong token": ({"/revision/": (401, 9)}, ()),
    "too many requests": ({"/revision/": (429, 9)}, ()),
    "listing refused": ({"/tree/": (403, 9)}, ()),
    "listing limited": ({"/tree/": (429, 9)}, ()),
    "file refused": ({"/resolve/": (403, 9)}, ()),
    "file gone": ({"/resolve/": (404, 9)}, ()),
    "file limited for a moment": ({"/resolve/": (429, 1)}, ()),
    "file limited": ({"/resolve/": (429, 99)}, ()),
    "unknown revision": ({}, ("data.revision=v9",)),
    "unknown set": ({}, ("data.root=nvidia/None",)),
    "no name of a set": ({}, ("data.root=nvidia",)),
    "unknown split": ({}, ()),
    "unknown folder": ({}, ("data.layout.math=[SFT/maths/*.jsonl]",)),
    "page": ({}, ("data.layout.math=[SFT/page.jsonl]",)),
    "parquet": ({}, (PARQUET,)),
    "parquet refused": ({"/resolve/": (403, 9)}, (PARQUET,)),
    "parquet that breaks off": ({}, (PARQUET,)),
}


def told(hub: Hub, name: str, out: Path) -> str:
    """Run a case and return its error, or how many rows are kept and how many kilobytes were fetched."""
    from huggingface_hub import HfFileSystem
    from prepared_rows import data_settings, formatter

    from nemo_reasoning.data.prepare import files, row_groups
    from nemo_reasoning.data.prepare.pipeline import prepare_data
    from nemo_reasoning.errors import NemoReasoningError

    files._FIRST_PAUSE = 0.01
    refused, overrides = CASES[name]
    hub.refused, hub.gated, hub.broken = dict(refused), name == "gated", int(name.endswith("breaks off"))
    hub.ranges.clear()
    for cache in (files._reader, row_groups._open):
        cache.cache_clear()
    HfFileSystem.clear_instance_cache()
    chosen = ("data=nemotron", "data.fast_tokenizer=false", "data.filters.languages=[]", "data.block_kb=16")
    subsets = "train" if name == "unknown split" else "math"
    shared = ("data.workers=1", "data.validation_share=0.2", f"data.subsets={{{subsets}: 30}}")
    data = data_settings(*chosen, *shared, *overrides)
    try:
        made = prepare_data(data, formatter=formatter(), seq_length=2048, out=out, tell=lambda line: None)
    except NemoReasoningError as error:
        return f"{type(error).__name__}: {error}"
    return f"kept {made['counts']['kept']}, {sum(last - first + 1 for _, first, last in hub.ranges) // 1000} kB"


def main() -> None:
    """Run all cases."""
    folder = Path(sys.argv[1])
    with serving(folder / "hub") as (endpoint, hub):
        os.environ |= {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"}  # before the hub's library is imported
        print(json.dumps({name: told(hub, name, folder / name) for name in CASES}))


if __name__ == "__main__":
    main()
