"""What all recipes share between Hydra and the library."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from nemo_reasoning.errors import NemoReasoningError


@contextmanager
def recipe() -> Iterator[None]:
    """Turn an error of ours into one line and exit code 1; the other packages' import warnings are not shown."""
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated")
    try:
        yield
    except NemoReasoningError as error:
        sys.exit(f"{type(error).__name__}: {error}")
