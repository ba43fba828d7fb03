"""Shares, intervals and tables as reports show them."""

from collections.abc import Sequence

from rich.table import Table

from nemo_reasoning.evaluation.results import BenchmarkResult, Setting


def percent(share: float) -> str:
    """Return a share from 0 to 1 as per cent with one decimal."""
    return f"{100 * share:.1f} %"


def interval(bounds: tuple[float, float]) -> str:
    """Return an interval of shares as per cent, without the sign."""
    return f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}"


def points(difference: float) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def points_between(bounds: tuple[float, float]) -> str:
    """Return an interval of differences in percentage points, with signs."""
    return f"{points(bounds[0])} to {points(bounds[1])}"


def cell(count: int, n: int, bounds: tuple[float, float]) -> str:
    """Return a count as a share with its interval."""
    return f"{count}/{n}  {percent(count / n)}  [{interval(bounds)}]"


def benchmark_table(measurements: Sequence[BenchmarkResult]) -> Table:
    """Return accuracy by benchmark and mode with a column per model, and the gain of training where there is one."""
    models = list(dict.fromkeys(model for found in measurements for model in found.evaluations))
    table = Table(caption="[ ] 95 % interval, per cent")
    table.add_column("benchmark")
    table.add_column("thinking")
    for heading in (*models, "gain") if "base" in models and "trained" in models else models:
        table.add_column(heading, justify="right")
    for found in measurements:
        for setting in found.settings():
            cells = [_score_cell(found, model, setting) for model in found.evaluations]
            gain = found.gain(setting)
            cells += [] if gain is None else [f"{points(gain.difference)}  [{points_between(gain.interval)}]"]
            mode, budget = setting
            table.add_row(found.benchmark, mode if budget is None else f"{mode}, {budget}", *cells)
    return table


def _score_cell(found: BenchmarkResult, model: str, setting: Setting) -> str:
    result = found.score(model, setting)
    return cell(result.correct, result.n, found.interval(model, setting))
