"""A layout of processes changes nothing: losses, norms of gradients and validation are those of one process."""

from pathlib import Path

import pytest
from layouts import LAYOUTS, TOLERANCE, largest_difference, train_in

pytestmark = pytest.mark.slow
Measured = dict[str, dict[int, float]]


@pytest.fixture(scope="module")
def alone(shared_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Return what one process measures."""
    return train_in(LAYOUTS["1"], shared_llama, tmp_path_factory.mktemp("layouts") / "alone")


@pytest.mark.parametrize("layout", ["tensor 2", "tensor 2, sequence", "pipeline 2", "data 2"])
def test_a_layout_changes_nothing(shared_llama: Path, alone: Measured, tmp_path: Path, layout: str) -> None:
    measured = train_in(LAYOUTS[layout], shared_llama, tmp_path / "run")
    assert largest_difference(measured, alone) < TOLERANCE, (measured, alone)
