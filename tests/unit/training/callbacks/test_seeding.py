"""Random numbers belong to a step, not to what ran before it."""

from pathlib import Path

import torch
from tiny_run import At, TinyLoop, fit

from nemo_reasoning.training.callbacks.seeding import RunLength, StepSeed


def draw(*, seed: int, step: int, replica: int = 0) -> list[float]:
    """Return random numbers of a step."""
    loop = TinyLoop([], max_steps=9)
    loop.step, loop.data_rank = step, replica
    torch.rand(step)  # whatever was drawn before
    StepSeed(seed).on_step_start(loop)
    return torch.rand(4).tolist()


def test_a_step_draws_what_it_drew_before() -> None:
    first = [draw(seed=7, step=step) for step in range(4)]

    assert [draw(seed=7, step=step) for step in range(2, 4)] == first[2:]
    assert len({tuple(numbers) for numbers in first}) == 4


def test_seeds_differ() -> None:
    assert draw(seed=7, step=1) != draw(seed=8, step=1)
    assert draw(seed=7, step=8) != draw(seed=8, step=7)


def test_replicas_draw_different_numbers() -> None:
    assert draw(seed=7, step=1, replica=1) != draw(seed=7, step=1)


def test_an_interrupted_run_draws_what_the_whole_run_does(tmp_path: Path) -> None:
    def numbers(folder: Path, steps: int) -> list[float]:
        drawn: list[float] = []
        notes = [At(step, lambda: drawn.append(float(torch.rand(1))), hook="on_step_start") for step in range(steps)]
        fit(folder, [StepSeed(3), *notes], max_steps=steps)
        return drawn

    whole = numbers(tmp_path / "whole", 5)
    assert numbers(tmp_path / "parts", 2) + numbers(tmp_path / "parts", 5) == whole
    assert len(set(whole)) == 5


def test_the_schedule_gets_the_length_of_the_run_before_its_first_step_and_when_it_changes() -> None:
    lengths: list[tuple[int, int]] = []

    class Scheduled(TinyLoop):
        def set_schedule(self, *, max_steps: int, warmup_steps: int) -> None:
            lengths.append((max_steps, warmup_steps))

    loop = Scheduled([RunLength(warmup_ratio=0.25)], max_steps=8)
    loop.callbacks.append(At(3, lambda: setattr(loop, "max_steps", 5)))
    loop.run()
    assert lengths == [(8, 2), (5, 1)]
