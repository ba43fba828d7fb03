"""Writing, and what a full disk says."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_reasoning.errors import DataError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the error of a full disk into one that says what to do.

    Raises:
        DataError: There was no room for `path`; what is finished stays and is used by the next run.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DataError(
            f"no room to write {path} ({error.strerror}); make room or choose another output_dir, then run again: "
            "finished parts are kept"
        ) from error


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a `.npy` file; unlike `np.save` on a file, fails with the error number of the system."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        described = np.lib.format.header_data_from_array_1_0(array)  # type: ignore[no-untyped-call]
        np.lib.format.write_array_header_1_0(file, described)  # type: ignore[no-untyped-call]
        file.write(array.data)
