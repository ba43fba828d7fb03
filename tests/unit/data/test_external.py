"""What lies in files is what numpy would make of it in memory."""

from pathlib import Path

import numpy as np
import pytest

from nemo_reasoning.data.prepare import external
from nemo_reasoning.data.prepare.dedup import Seen
from nemo_reasoning.data.prepare.external import ArrayFile, Sorter


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "AT_ONCE", 64)


def test_an_array_grows_and_leaves_no_file(tmp_path: Path) -> None:
    array = ArrayFile("i4", tmp_path)
    assert len(array.mapped()) == 0
    for first in (0, 100):
        array.append(np.arange(first, first + 100))
    assert array.mapped().tolist() == list(range(200))
    assert not list(tmp_path.iterdir())


def test_sets_in_files_are_sets(tmp_path: Path) -> None:
    random, seen, known = np.random.default_rng(0), Seen(tmp_path), set[int]()
    for _ in range(20):
        hashes = random.integers(0, 2**64, 50, dtype=np.uint64)
        hashes[:5] = [*list(known)[:4], 2**64 - 1][:5] if known else 0
        new = seen.new(hashes)
        expected = [value not in known and value not in hashes[:place] for place, value in enumerate(hashes.tolist())]
        assert new.tolist() == expected
        seen.add(hashes[new])
        known.update(hashes[new].tolist())


@pytest.mark.parametrize("count", [1, 64, 65, 1000])
def test_sorting_by_key_is_stable(tmp_path: Path, count: int) -> None:
    keys = np.random.default_rng(count).integers(0, 2**64, count, dtype=np.uint64)
    keys[count // 2 :: 3] = keys[0]
    keys[-1] = 2**64 - 1
    sorter = Sorter(count, tmp_path)
    for first in range(0, count, 100):
        part = keys[first : first + 100]
        sorter.add(part, np.arange(first, first + len(part)))
    assert sorter.numbers().tolist() == np.argsort(keys, kind="stable").tolist()
