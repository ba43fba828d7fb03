"""However a training ends, what its callbacks opened is closed, and the next one in the process starts afresh."""

import gc
import os
import signal
from pathlib import Path

import pytest
from short_runs import train_here
from tiny_run import At, TinyLoop

from nemo_reasoning.backend.runtime import backend
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.training import lightning_hooks
from nemo_reasoning.training import train as training
from nemo_reasoning.training.callbacks.base import Callback, Loop, RunContext
from nemo_reasoning.training.lightning_hooks import LightningHooks
from nemo_reasoning.training.memory_stats import Phase
from nemo_reasoning.training.process import Stopped
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import TrainingInputs

HOOKS = (
    "on_setup",
    "on_model",
    "on_start",
    "on_step_end",
    "on_validation_start",
    "on_validation_end",
    "on_save",
    "on_end",
)
FIRST, LAST = -1, 100


class Breaking(Callback):
    """Ends the training in a hook, first or last of all callbacks."""

    def __init__(self, hook: str, error: BaseException, *, position: int) -> None:
        def fail(loop: Loop, *_: object) -> None:
            raise error

        setattr(self, hook, fail)
        self.position = position  # type: ignore[misc]


@pytest.mark.parametrize("position", [FIRST, LAST])
def test_every_way_out_closes_what_is_open(
    inputs: TrainingInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nemo_cpu: None, position: int
) -> None:
    build, errors = training.build_callbacks, (RuntimeError("broken"), Stopped(143, said=True), ConfigError("refused"))
    for number, hook in enumerate(HOOKS[position == FIRST :: 2]):
        error = errors[number % len(errors)]

        def built(context: RunContext, hook: str = hook, error: BaseException = error) -> list[Callback]:
            return [*build(context), Breaking(hook, error, position=position)]

        monkeypatch.setattr(training, "build_callbacks", built)
        with pytest.raises(type(error)):
            train_here(inputs, tmp_path / hook, "trainer.gc_interval=1", "trainer.max_steps=1")
        assert (hook, Phase._open, gc.isenabled()) == (hook, [], True)


def test_a_training_that_cannot_begin_closes_too(
    inputs: TrainingInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    class Watching(LightningHooks):
        def close(self) -> None:
            super().close()
            closed.append("closed")

    def refused(*_: object, **__: object) -> None:
        raise ConfigError("refused")

    monkeypatch.setattr(lightning_hooks, "LightningHooks", Watching)
    monkeypatch.setattr("nemo_reasoning.training.nemo_objects.load_from", refused)
    with backend(cuda=False, transformer_engine=False), pytest.raises(ConfigError, match="refused"):
        train_here(inputs, tmp_path / "run")
    assert closed


def test_callbacks_are_closed_once_and_in_order_whatever_one_of_them_does() -> None:
    calls: list[str] = []

    class Closing(Callback):
        def __init__(self, name: str, position: int) -> None:
            self.name, self.position = name, position  # type: ignore[misc]

        def on_close(self, loop: Loop) -> None:
            calls.append(self.name)
            if self.name == "broken":
                raise OSError("broken")

    made = [Closing("last", 80), Closing("broken", 20), Closing("first", 10)]
    plan: object = None
    hooks = LightningHooks(TinyLoop([], max_steps=1), made, validation=plan, eval_interval=1)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="broken"):
        hooks.close()
    hooks.close()
    assert calls == ["first", "broken", "last"]


@pytest.mark.parametrize("hook", ["on_validation_start", "on_step_end"])
def test_a_sigterm_before_or_within_a_validation_saves_the_steps_before_it(
    inputs: TrainingInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nemo_cpu: None, hook: str
) -> None:
    build = training.build_callbacks
    at = At(2, lambda: os.kill(os.getpid(), signal.SIGTERM), hook=hook)  # behind all others, as samples are
    monkeypatch.setattr(training, "build_callbacks", lambda context: [*build(context), at])
    one_by_one = ("trainer.global_batch_size=1", "trainer.micro_batch_size=1")  # so that a validation has batches
    with pytest.raises(Stopped) as stopped:
        train_here(inputs, tmp_path / "run", *one_by_one, "trainer.eval_interval=2", "trainer.max_steps=4")
    last = Run.open(tmp_path / "run").last
    assert (stopped.value.code, stopped.value.said, last and last.step) == (143, True, 2)
    assert last.loss is not None
