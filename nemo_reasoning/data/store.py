"""Tokenised rows on disk, read through memory maps."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nemo_reasoning.artifacts import no_room, storage_problem
from nemo_reasoning.errors import DataError

IGNORED_LABEL = -100  # of a position that is not supervised, as everywhere in PyTorch


@dataclass(frozen=True, slots=True)
class Encoded:
    """A tokenised dialogue.

    Attributes:
        ids: Token ids, [n], int32.
        loss_mask: True where the token is a target, [n], bool.
    """

    ids: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]


_ARRAYS: dict[str, type[np.generic]] = {"tokens": np.int32, "loss_mask": np.bool_, "offsets": np.int64}


class _ArrayWriter:
    """Appends to a one-dimensional `.npy` file whose length is known only at the end."""

    def __init__(self, file: BinaryIO, dtype: type[np.generic]) -> None:
        self.file, self.dtype, self.length = file, np.dtype(dtype), 0
        self._write_header()

    def append(self, values: Any) -> None:
        array = np.asarray(values, dtype=self.dtype)
        self.file.write(np.ascontiguousarray(array).data)
        self.length += len(array)

    def finish(self) -> None:
        self.file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        """Write a header; NumPy leaves room in it, so that it is as long for every length."""
        described = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self.file, described)  # type: ignore[no-untyped-call]


class TokenWriter:
    """Writes a token store row by row; a context manager that finishes the files on leaving."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; it is made on entering."""
        self.folder, self.rows = folder, 0
        self._files = ExitStack()

    def __enter__(self) -> "TokenWriter":
        """Open the arrays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._tokens, self._loss_mask, self._offsets = (self._open(name, dtype) for name, dtype in _ARRAYS.items())
        self._offsets.append([0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record the lengths and close the arrays."""
        with self._files:
            for array in (self._tokens, self._loss_mask, self._offsets):
                array.finish()

    def append(self, row: Encoded) -> None:
        """Add a row."""
        self._tokens.append(row.ids)
        self._loss_mask.append(row.loss_mask)
        self._offsets.append([self._tokens.length])
        self.rows += 1

    def extend(self, tokens: NDArray[np.int32], loss_mask: NDArray[np.bool_], lengths: NDArray[np.int64]) -> None:
        """Add rows that lie one behind the other: tokens and mask [sum of lengths], and the lengths [rows]."""
        self._offsets.append(self._tokens.length + np.cumsum(lengths))
        self._tokens.append(tokens)
        self._loss_mask.append(loss_mask)
        self.rows += len(lengths)

    def _open(self, name: str, dtype: type[np.generic]) -> _ArrayWriter:
        file = self._files.enter_context((self.folder / f"{name}.npy").open("wb"))
        return _ArrayWriter(file, dtype)


class TokenStore:
    """Rows one behind the other in `tokens.npy`, `loss_mask.npy` and `offsets.npy`."""

    def __init__(self, tokens: NDArray[np.int32], loss_mask: NDArray[np.bool_], offsets: NDArray[np.int64]) -> None:
        """Hold the three arrays: [tokens], [tokens] and [rows + 1]."""
        self._tokens, self._loss_mask, self._offsets = tokens, loss_mask, offsets

    @classmethod
    def open(cls, folder: Path) -> "TokenStore":
        """Map the arrays of a folder.

        Raises:
            DataError: The folder holds no complete store, or one without a row.
        """
        tokens, loss_mask, offsets = (_mapped(folder / f"{name}.npy", dtype) for name, dtype in _ARRAYS.items())
        lengths = np.diff(offsets)
        if not (
            len(lengths) and lengths.min() > 0 and offsets[0] == 0 and len(tokens) == len(loss_mask) == offsets[-1]
        ):
            raise DataError(
                f"{folder} is empty or damaged: {len(tokens)} tokens, {len(loss_mask)} mask values, "
                f"{len(lengths)} rows up to {offsets[-1:]}; prepare the data again"
            )
        return cls(tokens, loss_mask, offsets)

    @staticmethod
    def write(folder: Path, rows: Iterable[Encoded]) -> "TokenStore":
        """Write rows to a folder, one at a time, and return the store.

        Raises:
            DataError: There is no row.
        """
        with TokenWriter(folder) as writer:
            for row in rows:
                writer.append(row)
        return TokenStore.open(folder)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> Encoded:
        """Return a row without copying it."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        row = slice(self._offsets[index], self._offsets[index + 1])
        return Encoded(self._tokens[row], self._loss_mask[row])

    def __iter__(self) -> Iterator[Encoded]:
        """Yield the rows in order."""
        return (self[index] for index in range(len(self)))

    @property
    def largest_token(self) -> int:
        """Largest token id of all rows."""
        return int(self._tokens.max())

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, [rows]."""
        return np.diff(self._offsets)

    @property
    def supervised(self) -> NDArray[np.int64]:
        """Targets of each row, [rows]. A row's first token predicts nothing, so it never counts."""
        ends = np.concatenate([[0], np.cumsum(self._loss_mask, dtype=np.int64)])
        firsts = self._loss_mask[self._offsets[:-1]]
        supervised: NDArray[np.int64] = np.diff(ends[self._offsets]) - firsts
        return supervised


def _mapped(path: Path, dtype: type[np.generic]) -> Any:
    """Map an array of a store.

    Raises:
        DataError: It is not there, cut, or no array of this kind.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # type: ignore[no-untyped-call]
    except FileNotFoundError:
        raise DataError(f"{path} is not there; prepare the data again") from None
    except (ValueError, OSError) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(f"{path} cannot be read ({told}); prepare the data again") from error
    if array.dtype != dtype or array.ndim != 1:
        raise DataError(
            f"{path} holds {array.dtype} {list(array.shape)} and not a row of {np.dtype(dtype)}; prepare the data again"
        )
    return array


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the error of a full disk into one that says what to do.

    Raises:
        DataError: There was no room for `path`; what is finished stays and is used by the next run.
    """
    try:
        yield
    except OSError as error:
        if no_room(error) is None:
            raise
        raise DataError(
            f"no room to write {path}: {storage_problem(error, places=[path])} or choose another output_dir, then run "
            "again: finished parts are kept"
        ) from error


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a `.npy` file; unlike `np.save` on a file, fails with the error number of the system."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        described = np.lib.format.header_data_from_array_1_0(array)  # type: ignore[no-untyped-call]
        np.lib.format.write_array_header_1_0(file, described)  # type: ignore[no-untyped-call]
        file.write(array.data)
