"""Prepares a folder in a process of its own, to be killed: `killed_run.py OUT [--file-limit BYTES] OVERRIDE...`."""

import resource
import sys
from pathlib import Path

from prepared_rows import prepared

from nemo_reasoning.errors import DataError

if __name__ == "__main__":
    out, *overrides = sys.argv[1:]
    if overrides[0] == "--file-limit":
        limit = int(overrides[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        overrides = overrides[2:]
    try:
        prepared(Path(out), *overrides)
    except DataError as error:
        sys.exit(str(error))
