"""The planner against steps of one rank of several, traced at full size, as docs/results/memory_layouts.md has them."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
PAGE = ROOT / "docs" / "results" / "memory_layouts.md"


def test_every_rank_is_planned_to_the_byte_and_what_it_keeps_within_five_percent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from traced_layouts import HEADINGS, RANKS, planned

    from nemo_reasoning.training.memory.activations import kept_bytes
    from nemo_reasoning.training.memory.estimate import GIB, estimate_memory

    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    assert tuple(rows[0]) == HEADINGS
    assert len(rows) - 1 == len(RANKS)
    for rank, cells in zip(RANKS, rows[1:], strict=True):
        traced, work = dict(zip(HEADINGS, cells, strict=True)), planned(rank)
        plan = estimate_memory(work)
        assert traced["base"] == f"{plan.static.weights:,}", rank
        assert traced["adapter"] == f"{plan.static.adapter:,}", rank
        assert "planned" not in traced["gradients, optimizer"], rank
        assert kept_bytes(work) / GIB == pytest.approx(float(traced["kept, traced GiB"]), rel=0.05), rank
        assert plan.peak / GIB == pytest.approx(float(traced["peak, traced GiB"]), rel=0.05), rank
