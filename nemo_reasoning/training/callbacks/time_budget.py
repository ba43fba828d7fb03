"""A number of steps that fits a time: `trainer.hours`."""

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from statistics import fmean
from typing import Self

from nemo_reasoning.training.callbacks.base import Callback, Loop, RunContext, StepRecord, Validation
from nemo_reasoning.training.checkpoints import LENGTH, History

_FIRST, _SHARE = 5, 0.1  # a first estimate after so many steps; the last one after this share of the time
_NEGLIGIBLE = 0.01  # a correction of so small a share of the steps, or of a single one, is left out
_AHEAD = 500  # batches to come whose sizes are looked at; those after them are of the mean size


class TimeBudget(Callback):
    """Fixes the number of steps from the measured speed, so that all of the work ends on time.

    A first estimate after a few steps gives the learning rate schedule its length; the number is fixed after a tenth
    of the time, when a validation with its save was measured too, and recorded with the speed: a run that goes on keeps
    it, less the steps that the restart took the time of. Where the machine becomes slower or faster, it is corrected at
    every further tenth. The time is that of all starts together; the last validation and save, and what the command
    does after training, lie within it.
    """

    position = 65  # behind the saving, which it measures

    def __init__(
        self,
        seconds: float,
        *,
        started: float,
        afterwards: float,
        eval_interval: int,
        writes_every: Sequence[int],
        tokens: Callable[[int], int],
        history: History,
        show: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the time and what has to fit.

        Args:
            seconds: The whole time.
            started: `clock()` when it began; of a run that goes on, earlier by what its earlier starts took.
            afterwards: Seconds that the command needs after training.
            eval_interval: Steps between validations.
            writes_every: Steps between what lets the model write, samples and questions, each; what that takes is
                known once it was done first.
            tokens: Positions that a step computes, counted from 0: what its time is taken to be proportional to.
            history: Where the number is recorded.
            show: Tells the user in one line.
            clock: Tells the time in seconds.
        """
        self._seconds, self._started, self._afterwards = seconds, started, afterwards
        self._eval_interval = eval_interval
        self._writing = dict.fromkeys(writes_every, 0.0)  # seconds that each took when it was longest
        self._tokens, self._history, self._show, self._clock = tokens, history, show, clock
        self._fixed = self._asked = False
        self._due = _SHARE  # of the time: when the number is next fixed or corrected
        self._steps: list[tuple[float, int]] = []  # seconds and positions of each
        self._recorded: tuple[float, float] | None = None  # mean seconds and positions of a step in an earlier start
        self._began = self._step_began = self._step_ended = self._pause_began = self._pause = self._paused = 0.0

    @classmethod
    def from_run(cls, context: RunContext) -> Self | None:
        """Fit the steps where `trainer.hours` is given."""
        settings, asked = context.run.settings, context.run.settings.callbacks.eval
        if settings.trainer.hours is None:
            return None
        return cls(
            3600 * settings.trainer.hours,
            started=context.usage.began - context.usage.earlier,
            afterwards=context.afterwards,
            eval_interval=settings.trainer.eval_interval,
            writes_every=[
                steps for steps in (settings.callbacks.samples_interval, asked.every_n_steps if asked else 0) if steps
            ],
            tokens=lambda step: context.batches.batch_counts(step).tokens,
            history=context.run.history,
            show=context.show,
        )

    def on_start(self, loop: Loop) -> None:
        """Take up the number that an earlier start has fixed, less what the restart cost."""
        self._began = self._clock()
        known = [length for length in self._history.lengths if length["step"] <= loop.step]
        if known:
            loop.max_steps, self._fixed = known[-1]["steps"], bool(known[-1].get("fixed"))
        if self._fixed and (pace := known[-1].get("pace")):
            self._recorded, self._pause = (pace["seconds"], pace["tokens"]), pace["pause"]
            self._writing |= {steps: seconds for steps, seconds in pace.get("writing", []) if steps in self._writing}
            self._set(loop, fixed=True)

    def on_step_start(self, loop: Loop) -> None:
        """Take the time; what lies between two steps and is no validation is the model's writing."""
        self._step_began = self._clock()
        written = [steps for steps in self._writing if loop.step % steps == 0]
        if written and self._step_ended:
            new = self._step_began - self._step_ended - self._paused - sum(self._writing[steps] for steps in written)
            unknown = [steps for steps in written if not self._writing[steps]]
            for steps in (unknown or written) if new > 0 else []:
                self._writing[steps] += new / len(unknown or written)
            if unknown and self._fixed:
                self._due = 0.0  # what was not known is heeded after the next step

    def on_step_end(self, loop: Loop, record: StepRecord) -> None:
        """Estimate, ask for a validation when it is time to fix the number, and correct it later."""
        self._step_ended, self._paused = self._clock(), 0.0
        self._steps.append((self._step_ended - self._step_began, self._tokens(record.step - 1)))
        if len(self._steps) < _FIRST:
            return
        if len(self._steps) == _FIRST and not self._fixed:
            self._set(loop, fixed=False)
        available = self._seconds - self._afterwards - (self._began - self._started)
        cycle = (
            self._measured[0] * self._eval_interval <= 2.5 * _SHARE * available and record.step < self._eval_interval
        )
        used = (self._step_ended - self._began) / available if available > 0 else 1.0
        if loop.any_rank(used >= self._due and (self._fixed or not cycle)):
            self._due = used + _SHARE
            if self._fixed:
                self._set(loop, fixed=True)
            else:
                self._asked = True
                loop.request_validation()

    def on_validation_start(self, loop: Loop) -> None:
        """Take the time of the pause."""
        self._pause_began = self._clock()

    def on_validation_end(self, loop: Loop, validation: Validation) -> None:
        """Fix the number if that was what the validation was for."""
        self._pause = self._paused = self._clock() - self._pause_began
        if self._asked and not self._fixed:
            self._set(loop, fixed=True)

    @property
    def _measured(self) -> tuple[float, float]:
        """Mean seconds and mean positions of a step: of the later half, as the first compiles and machines change."""
        if len(self._steps) < _FIRST and self._recorded is not None:
            return self._recorded
        counted = self._steps[min(len(self._steps) // 2, len(self._steps) - _FIRST + 1) :]
        return fmean(seconds for seconds, _ in counted), fmean(tokens for _, tokens in counted)

    def _fitting(self, step: int, *, left: float, between: float) -> int:
        """Return how many steps from `step` on take the time that is left, one at least.

        Batches differ in size, and the few that were measured need not be of the mean size.
        """
        seconds, tokens = self._measured
        ahead = [seconds * self._tokens(number) / tokens + between for number in range(step, step + _AHEAD)]
        ends = list(accumulate(ahead))
        return max(1, int(left / fmean(ahead)) if left >= ends[-1] else bisect_right(ends, left))

    def _set(self, loop: Loop, *, fixed: bool) -> None:
        between = self._pause / self._eval_interval
        between += sum(seconds / steps for steps, seconds in self._writing.items())
        left = self._seconds - (self._clock() - self._started) - self._afterwards
        left -= self._pause + sum(self._writing.values())  # once more behind the last step
        steps = loop.agree(loop.step + self._fitting(loop.step, left=left, between=between))
        if self._fixed and abs(steps - loop.max_steps) <= max(1, _NEGLIGIBLE * loop.max_steps):
            return
        loop.max_steps, self._fixed = steps, fixed
        if loop.first_rank:
            seconds, tokens = self._measured
            pace = {"seconds": seconds, "tokens": tokens, "pause": self._pause, "writing": [*self._writing.items()]}
            self._history.append(LENGTH, step=loop.step, steps=loop.max_steps, fixed=fixed, pace=pace)
            if fixed:
                self._show(
                    f"trainer.hours: {loop.max_steps} steps at {seconds:.2f} s a step, and "
                    f"{self._pause:.1f} s for each validation with its save"
                )
