"""The number of steps that fits a time, on a clock that the test turns."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
from tiny_run import At, TinyLoop, fit

from nemo_reasoning.training.callbacks.base import UNKNOWN_LENGTH, Callback, Loop, StepRecord
from nemo_reasoning.training.callbacks.time_budget import TimeBudget
from nemo_reasoning.training.checkpoints import LENGTH, History


class Work(Callback):
    """Turns the clock: each step takes about a second, the first one ten, and a validation four.

    If the test wants that, rows become longer, so that batches at the beginning are shorter than the mean, or the
    machine becomes slower in the middle. What lets the model write takes `writes` seconds every so many steps, and at
    the end.
    """

    position = 99

    def __init__(self, *, growth: float = 0.0, slower: float = 1.0, writes: dict[int, float] | None = None) -> None:
        self.now, self.growth, self.slower = 1000.0, growth, slower
        self.writes = writes or {}

    def tokens(self, step: int) -> int:
        return int(1000 * (1 + self.growth * step))

    def on_step_start(self, loop: Loop) -> None:
        speed = self.slower if self.now > 1150 else 1.0
        self.now += 10 if loop.step == 0 else (0.9 + 0.2 * (loop.step % 2)) * speed * self.tokens(loop.step) / 1000

    def on_step_end(self, loop: Loop, record: StepRecord) -> None:
        self.now += sum(seconds for steps, seconds in self.writes.items() if loop.step % steps == 0)

    def on_validation_start(self, loop: Loop) -> None:
        self.now += 4

    def on_end(self, loop: Loop) -> None:
        self.now += sum(seconds for steps, seconds in self.writes.items() if loop.step % steps)


def budget(
    folder: Path, work: Work, seconds: float, *, afterwards: float = 0.0, earlier: float = 0.0, interval: int = 20
) -> TimeBudget:
    """Return a budget that begins now, or whose run had earlier starts."""
    return TimeBudget(
        seconds,
        started=work.now - earlier,
        afterwards=afterwards,
        eval_interval=interval,
        writes_every=[*work.writes],
        tokens=work.tokens,
        history=History(folder),
        show=print,
        clock=lambda: work.now,
    )


def fixed_steps(folder: Path) -> list[int]:
    """Return the numbers of steps that were fixed."""
    return [event["steps"] for event in History(folder).events() if event["event"] == LENGTH and event["fixed"]]


@pytest.mark.parametrize(
    ("seconds", "afterwards", "growth", "slower"),
    [(300, 0, 0, 1), (300, 60, 0, 1), (90, 0, 0, 1), (300, 0, 0.01, 1), (300, 0, 0, 1.4), (300, 0, 0, 0.7)],
)
def test_training_ends_on_time(tmp_path: Path, seconds: float, afterwards: float, growth: float, slower: float) -> None:
    work = Work(growth=growth, slower=slower)
    callback = budget(tmp_path, work, seconds, afterwards=afterwards, interval=2)
    model = fit(tmp_path, [work, callback], max_steps=UNKNOWN_LENGTH)
    assert work.now - 1000 == pytest.approx(seconds - afterwards, abs=0.03 * seconds)
    fixed = fixed_steps(tmp_path)
    assert fixed[-1] == len(model.losses)
    assert (len(fixed) == 1) == (slower == 1)  # it is corrected only where the machine changes
    assert len(model.losses) in History(tmp_path).losses()  # the last step is validated


@pytest.mark.parametrize("writes", [{20: 12.0}, {40: 15.0}, {25: 6.0, 30: 9.0}, {20: 5.0, 60: 10.0}, {50: 20.0}])
@pytest.mark.parametrize("stop", [None, 62])
def test_what_the_model_writes_is_counted(tmp_path: Path, writes: dict[int, float], stop: int | None) -> None:
    work, seconds = Work(writes=writes), 600.0
    for step in [None] if stop is None else [stop, None]:
        hours = budget(tmp_path, work, seconds, earlier=work.now - 1000, interval=2)
        loop = TinyLoop([work, hours], max_steps=UNKNOWN_LENGTH)
        loop.step = 0 if step == stop else 62
        if step is not None:
            loop.callbacks.append(At(step, partial(setattr, loop, "stopping", True)))
        loop.run()
    assert work.now - 1000 == pytest.approx(seconds, abs=0.03 * seconds)


def test_processes_whose_clocks_differ_fix_it_at_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TinyLoop, "any_rank", lambda loop, told: told or loop.step >= 7)  # another one's clock
    work = Work()
    TinyLoop([work, budget(tmp_path, work, 3000)], max_steps=9).run()
    assert History(tmp_path).lengths[1]["step"] == 7


def test_a_time_that_is_too_short_ends_at_once(tmp_path: Path) -> None:
    work = Work()
    model = fit(tmp_path, [work, budget(tmp_path, work, 12.0)], max_steps=UNKNOWN_LENGTH)
    assert len(model.losses) <= 7


@pytest.mark.parametrize(
    ("seconds", "stops", "restart", "slower"),
    [
        *[(300, [6], 20, 1), (300, [30], 20, 1.4), (300, [85], 12, 1)],
        *[(200, [3, 4, 9], 5, 1), (300, [20, 40, 60], 20, 0.8)],
    ],
)
def test_all_starts_of_a_run_together_end_on_time(
    tmp_path: Path, seconds: float, stops: list[int], restart: float, slower: float
) -> None:
    def stop() -> None:
        raise RuntimeError("killed")

    work = Work(slower=slower)
    for step in [*stops, None]:
        hours = budget(tmp_path, work, seconds, earlier=work.now - 1000, interval=2)
        work.now += restart  # what lies before the first step
        end = [] if step is None else [At(step, stop)]
        with nullcontext() if step is None else pytest.raises(RuntimeError, match="killed"):
            fit(tmp_path, [work, hours, *end], max_steps=UNKNOWN_LENGTH)
    assert work.now - 1000 == pytest.approx(seconds, abs=0.03 * seconds)
    assert History(tmp_path).losses().keys() >= {fixed_steps(tmp_path)[-1]}


def test_a_restart_keeps_the_number_unless_it_took_time(tmp_path: Path) -> None:
    def stop() -> None:
        raise RuntimeError("killed")

    work = Work()
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path, [work, budget(tmp_path, work, 300.0, interval=2), At(31, stop)], max_steps=UNKNOWN_LENGTH)
    fixed, took = fixed_steps(tmp_path), work.now - 1000
    loop = TinyLoop([], max_steps=UNKNOWN_LENGTH)
    loop.step = 31
    budget(tmp_path, work, 300.0, earlier=took, interval=2).on_start(loop)
    assert [loop.max_steps] == fixed_steps(tmp_path) == fixed  # kept: nothing was lost

    fit(tmp_path, [work, budget(tmp_path, work, 300.0, earlier=500.0, interval=2)], max_steps=UNKNOWN_LENGTH)
    assert fixed_steps(tmp_path)[-1] == max(History(tmp_path).losses()) == 31
