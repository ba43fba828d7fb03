"""The documented table is what the planner says; the guide's estimate agrees with it."""

from pathlib import Path

import pytest
from architectures import LISTED
from hypothesis import given
from hypothesis import strategies as st

from nemo_reasoning.training.memory.tables import estimate_batch_size, fits_table, listed_models

PAGE = Path(__file__).resolve().parents[4] / "docs" / "memory.md"


def test_the_page_holds_the_planners_table() -> None:
    assert fits_table() in PAGE.read_text(encoding="utf-8"), "run python -m nemo_reasoning.training.memory"


def test_every_model_and_scheme_is_in_it() -> None:
    rows = {tuple(line.split(" | ")[0:3:2]) for line in fits_table().splitlines()[2:]}

    assert set(listed_models()) == set(LISTED)
    wanted = {(f"| {name}", scheme) for name in LISTED for scheme in ("lora", "qlora", "dora", "none")}
    assert wanted - rows == {("| qwen25_7b", "dora")}  # which is refused: NeMo's DoRA scales the bias


@pytest.mark.parametrize(
    ("billions", "gibibytes", "tokens", "scheme", "rows"),
    [(8, 24, 4096, "lora", 1), (8, 24, 4096, "none", 0), (70, 80, 4096, "lora", 0), (0.135, 24, 256, "lora", 64)],
)
def test_the_guides_estimate(billions: float, gibibytes: float, tokens: int, scheme: str, rows: int) -> None:
    assert estimate_batch_size(billions, gibibytes, tokens, scheme=scheme) == rows


@given(st.floats(0.1, 80), st.floats(8, 200), st.sampled_from([256, 1024, 4096, 16384]))
def test_more_memory_or_fewer_tokens_never_give_a_smaller_batch(billions: float, gibibytes: float, tokens: int) -> None:
    rows = estimate_batch_size(billions, gibibytes, tokens)

    assert estimate_batch_size(billions, gibibytes * 1.5, tokens) >= rows
    assert estimate_batch_size(billions, gibibytes, tokens // 2) >= rows


@pytest.mark.parametrize("sizes", [(0, 24, 4096), (8, -1, 4096), (8, 24, 0)])
def test_sizes_are_positive(sizes: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        estimate_batch_size(*sizes)
