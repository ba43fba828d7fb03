"""NeMo-Run, without what it would load: a machine that only submits needs no torch."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nemo_reasoning.packages import require


@contextmanager
def nemo_run_alone(*, needed_by: str) -> Iterator[None]:
    """Let the block import NeMo-Run, which looks for torch only to be able to write dtypes into YAML.

    Args:
        needed_by: The setting, as the user writes it.

    Raises:
        MissingPackageError: NeMo-Run is not installed.
    """
    require("nemo_run", needed_by=needed_by)
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # an import of it raises ImportError
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]
