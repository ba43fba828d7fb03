"""Tokenised rows on disk: what was written is read, and what is damaged is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_reasoning.data.store import Encoded, TokenStore, TokenWriter
from nemo_reasoning.errors import DataError

ARRAYS = ("tokens", "loss_mask", "offsets")
ROWS = st.lists(
    st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), min_size=1, max_size=9), min_size=1, max_size=12
)


def encoded(ids: list[int], mask: list[int]) -> Encoded:
    return Encoded(np.asarray(ids, dtype=np.int32), np.asarray(mask, dtype=np.bool_))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    TokenStore.write(tmp_path / "store", [encoded([5, 6, 7], [0, 1, 1]), encoded([8, 9], [1, 1])])
    return tmp_path / "store"


@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_rows_come_back_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]]) -> None:
    folder = tmp_path_factory.mktemp("store")
    written = [encoded(*zip(*row, strict=True)) for row in rows]
    TokenStore.write(folder, iter(written))
    store = TokenStore.open(folder)
    assert len(store) == len(written)
    for row, original in zip(store, written, strict=True):
        assert (row.ids.dtype, row.loss_mask.dtype) == (np.int32, np.bool_)
        assert row.ids.tolist() == original.ids.tolist()
        assert row.loss_mask.tolist() == original.loss_mask.tolist()
    assert store.lengths.tolist() == [len(row.ids) for row in written]
    assert store.supervised.tolist() == [row.loss_mask[1:].sum() for row in written]


def test_the_files_are_plain_numpy_arrays(folder: Path) -> None:
    assert np.load(folder / "tokens.npy").tolist() == [5, 6, 7, 8, 9]
    assert np.load(folder / "loss_mask.npy").tolist() == [False, True, True, True, True]
    assert np.load(folder / "offsets.npy").tolist() == [0, 3, 5]
    assert [np.load(folder / f"{name}.npy").dtype.name for name in ARRAYS] == ["int32", "bool", "int64"]


def test_rows_are_mapped_not_copied(folder: Path) -> None:
    row = TokenStore.open(folder)[0]
    assert isinstance(row.ids, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        row.ids[0] = 1


def test_the_first_token_of_a_row_predicts_nothing(folder: Path) -> None:
    assert TokenStore.open(folder).supervised.tolist() == [2, 1]


@pytest.mark.parametrize("index", [-1, 2])
def test_there_are_no_other_rows(folder: Path, index: int) -> None:
    with pytest.raises(IndexError, match=f"row {index} of 2"):
        TokenStore.open(folder)[index]


def test_writing_again_replaces_what_was_there(folder: Path) -> None:
    store = TokenStore.write(folder, [encoded([1], [0])])
    assert [row.ids.tolist() for row in store] == [[1]]


def test_a_store_without_a_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty or damaged: 0 tokens, 0 mask values, 0 rows"):
        TokenStore.write(tmp_path / "store", [])


def test_a_store_that_is_still_being_written_is_refused(tmp_path: Path) -> None:
    with TokenWriter(tmp_path / "store") as writer:
        writer.append(encoded([1, 2], [0, 1]))
        with pytest.raises(DataError, match="prepare the data again"):
            TokenStore.open(tmp_path / "store")
    assert len(TokenStore.open(tmp_path / "store")) == writer.rows == 1


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing left": lambda content: b"",
    "one byte left": lambda content: content[:1],
    "header cut": lambda content: content[:50],
    "end cut": lambda content: content[:-1],
    "garbage": lambda content: b"PK\x03\x04" + content[4:],
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_damaged_files_are_refused(folder: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    path = folder / f"{name}.npy"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"{folder}.*prepare the data again"):
        TokenStore.open(folder)


@pytest.mark.parametrize("name", ARRAYS)
def test_missing_files_are_refused(folder: Path, name: str) -> None:
    (folder / f"{name}.npy").unlink()
    with pytest.raises(DataError, match=rf"{name}\.npy is not there; prepare the data again"):
        TokenStore.open(folder)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tokens", [5, 6, 7, 8]),
        ("loss_mask", [0, 1, 1, 1, 1, 1]),
        ("offsets", []),
        ("offsets", [0]),
        ("offsets", [0, 3]),
        ("offsets", [0, 3, 6]),
        ("offsets", [1, 3, 5]),
        ("offsets", [0, 3, 3, 5]),
        ("offsets", [0, 6, 5]),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(folder: Path, name: str, values: list[int]) -> None:
    path = folder / f"{name}.npy"
    np.save(path, np.asarray(values, dtype=np.load(path).dtype))
    with pytest.raises(DataError, match="empty or damaged"):
        TokenStore.open(folder)
