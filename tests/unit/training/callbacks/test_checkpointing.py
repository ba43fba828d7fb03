"""Saving, stopping and going on."""

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import At, Killed, TinyLoop, checkpointing, dying, fit

from nemo_reasoning.errors import CheckpointError
from nemo_reasoning.training.callbacks.checkpointing import Checkpointing
from nemo_reasoning.training.checkpoint_store import CheckpointStore
from nemo_reasoning.training.checkpoints import list_checkpoints
from nemo_reasoning.training.loggers import JsonlLogger
from nemo_reasoning.training.process import TIME_IS_UP, Stopped, StopSignals


def names(folder: Path) -> list[str]:
    """Return what lies among the checkpoints."""
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def stopped(folder: Path, step: int, hook: str, *, by: signal.Signals, max_steps: int = 5) -> tuple[int, list[str]]:
    """Train with a signal in `hook` of `step`; return the exit code and what the user is told."""
    shown: list[str] = []
    signals, sending = StopSignals(), At(step, lambda: os.kill(os.getpid(), by), hook=hook)
    saving = checkpointing(folder, show=shown.append, stop_signal=lambda: signals.received)
    with signals, signals.deferred(), pytest.raises(Stopped) as left:
        fit(folder, [sending], max_steps=max_steps, saving=saving)
    return int(left.value.code or 0), shown


@pytest.mark.parametrize(
    ("by", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)], ids=lambda value: str(value)
)
@pytest.mark.parametrize(
    ("step", "hook", "saved"),
    [
        (2, "on_step_start", 3),  # within the third step, which is finished first
        (2, "on_validation_start", 2),
    ],
)
def test_every_way_to_stop_finishes_the_step_and_saves_it(
    tmp_path: Path, by: signal.Signals, code: int, step: int, hook: str, saved: int
) -> None:
    if signal.getsignal(by) is signal.SIG_IGN:  # tests started with nohup
        signal.signal(by, signal.SIG_DFL)
    before = signal.getsignal(by)
    found, (told,) = stopped(tmp_path, step, hook, by=by)
    assert found == code
    assert signal.getsignal(by) == before
    assert f"saved step {saved} of 5" in told
    assert list_checkpoints(tmp_path)[-1].step == saved
    rest = fit(tmp_path, [], max_steps=5).losses
    assert rest == fit(tmp_path / "whole", [], max_steps=5).losses[saved:]


def test_a_signal_in_the_last_step_lets_training_finish(tmp_path: Path) -> None:
    shown: list[str] = []
    saving = checkpointing(tmp_path, show=shown.append, stop_signal=lambda: signal.SIGTERM if ready else None)
    ready: list[int] = []
    model = fit(tmp_path, [At(4, lambda: ready.append(1), hook="on_step_start")], max_steps=5, saving=saving)
    assert (len(model.losses), shown) == (5, [])


def test_the_jobs_time_limit_stops_before_it_is_over(tmp_path: Path) -> None:
    shown: list[str] = []
    deadline = time.monotonic() + 3
    saving = checkpointing(tmp_path, show=shown.append, deadline=deadline)
    slow = [At(step, lambda: time.sleep(0.4), hook="on_step_start") for step in range(99)]
    with pytest.raises(Stopped) as left:
        fit(tmp_path, slow, max_steps=99, saving=saving)
    assert left.value.code == TIME_IS_UP
    assert "trainer.max_hours" in shown[0]
    assert time.monotonic() < deadline
    assert list_checkpoints(tmp_path)[-1].step >= 2


def test_what_was_not_validated_is_last_and_never_best(tmp_path: Path) -> None:
    stopped(tmp_path, 2, "on_step_start", by=signal.SIGTERM)
    losses = {found.step: found.loss for found in list_checkpoints(tmp_path)}
    assert losses.keys() == {2, 3}
    assert losses[3] is None
    assert losses[2] is not None


def test_the_best_and_the_last_are_kept_and_named_so(tmp_path: Path) -> None:
    fit(tmp_path, [], max_steps=8, saving=checkpointing(tmp_path, keep=2))
    found = list_checkpoints(tmp_path)
    best = sorted((2, 4, 6), key=CheckpointStore(tmp_path).history.losses().__getitem__)[:2]
    assert {checkpoint.step for checkpoint in found} == {*best, 8}
    assert [name for name in names(tmp_path) if name.endswith("-last")] == ["step=8-last"]


def test_by_default_there_is_one_to_go_back_to(tmp_path: Path) -> None:
    stopped(tmp_path, 0, "on_step_start", by=signal.SIGTERM)  # saved without a validation
    fit(tmp_path, [], max_steps=2)
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [1, 2]


def test_going_on_with_fewer_to_keep_collects_the_others(tmp_path: Path) -> None:
    fit(tmp_path, [], max_steps=6, saving=checkpointing(tmp_path, keep=3))
    assert len(names(tmp_path)) == 3
    fit(tmp_path, [], max_steps=8, saving=checkpointing(tmp_path, keep=0))
    assert names(tmp_path) == ["step=8-last"]


def test_a_torn_save_is_removed_and_the_one_before_is_used(tmp_path: Path) -> None:
    fit(tmp_path, [], max_steps=4, saving=checkpointing(tmp_path, keep=4))
    last = list_checkpoints(tmp_path)[-1].path
    (last / "checkpoint.json").unlink()
    last.with_name(last.name + "-unfinished").touch()
    checkpoint, notes = CheckpointStore(tmp_path).recover()
    assert checkpoint is not None
    assert checkpoint.step == 2
    assert last.name in notes[0]
    assert names(tmp_path) == [checkpoint.path.name]


def test_a_damaged_checkpoint_is_named_and_set_aside(tmp_path: Path) -> None:
    fit(tmp_path, [], max_steps=4, saving=checkpointing(tmp_path, keep=4))
    last = list_checkpoints(tmp_path)[-1].path
    file = last / "weights" / "state.pt"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    checkpoint, (note,) = CheckpointStore(tmp_path).recover()
    assert checkpoint is not None
    assert checkpoint.step == 2
    assert "step 4" in note
    assert "state.pt" in note
    assert (tmp_path / "set_aside" / last.name).is_dir()
    assert fit(tmp_path, [], max_steps=5).losses == fit(tmp_path / "whole", [], max_steps=5).losses[2:]


def test_with_none_left_it_starts_over_only_when_asked(tmp_path: Path) -> None:
    fit(tmp_path, [], max_steps=4)
    for checkpoint in list_checkpoints(tmp_path):
        (checkpoint.path / "weights" / "state.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="restart=true"):
        CheckpointStore(tmp_path).recover()
    with pytest.raises(CheckpointError, match="restart=true"):
        fit(tmp_path, [], max_steps=4)
    CheckpointStore(tmp_path).restart()
    assert len(fit(tmp_path, [], max_steps=4).losses) == 4


def test_copies_doubles_and_old_times_do_not_confuse_it(tmp_path: Path) -> None:
    fit(tmp_path, [], max_steps=6, saving=checkpointing(tmp_path, keep=9))
    first, second, third = (found.path for found in list_checkpoints(tmp_path))
    shutil.copytree(second, second.with_name("a copy"))
    shutil.copytree(first, first.with_name("step=99-val_loss=0.0000-last"))
    (third.parent / "notes.txt").write_text("mine")
    for number, path in enumerate((third, second, first)):
        os.utime(path, (number, number))
    checkpoint, notes = CheckpointStore(tmp_path).recover()
    assert checkpoint is not None
    assert (checkpoint.step, notes) == (6, [])
    assert [found.step for found in list_checkpoints(tmp_path, doubles=True)] == [2, 4, 6]


def test_a_kill_at_any_file_operation_of_a_run_ends_in_one_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(tmp_path / "whole", [], max_steps=6).losses
    chosen = [(found.step, found.loss) for found in list_checkpoints(tmp_path / "whole")]
    with monkeypatch.context() as patch:
        total = len(dying(patch, None)) or len(_operations(tmp_path / "count", patch))
    assert total > 60
    for limit in range(total):
        folder = tmp_path / f"killed{limit}"
        with monkeypatch.context() as patch:
            dying(patch, limit)
            with pytest.raises(Killed):
                fit(folder, [], max_steps=6)
        losses = fit(folder, [], max_steps=6).losses
        assert losses == whole[len(whole) - len(losses) :], limit
        assert [(found.step, found.loss) for found in list_checkpoints(folder, doubles=True)] == chosen, limit
        assert sum(name.endswith("-last") for name in names(folder)) == 1, limit
        assert not [name for name in names(folder) if name.endswith("-unfinished")], limit
        shutil.rmtree(folder)


def _operations(folder: Path, patch: pytest.MonkeyPatch) -> list[str]:
    seen = dying(patch, None)
    fit(folder, [], max_steps=6)
    return seen


def test_a_full_disk_is_said_in_one_line_and_the_run_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = TinyLoop.save

    def full(self: TinyLoop, path: Path) -> None:
        save(self, path)
        if self.step == 4:
            raise RuntimeError("writer failed") from OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(TinyLoop, "save", full)
        with pytest.raises(CheckpointError, match=r"save step 4, the disk is full: .* MB.*goes on after step 2"):
            fit(tmp_path, [], max_steps=6)
    assert names(tmp_path) == ["step=2-last"]
    assert fit(tmp_path, [], max_steps=6).losses == fit(tmp_path / "whole", [], max_steps=6).losses[2:]


@pytest.mark.parametrize("again", [True, False], ids=["another in its place", "none in its place"])
def test_a_folder_that_is_moved_meanwhile_is_not_begun_anew(tmp_path: Path, again: bool) -> None:
    folder, place = tmp_path / "run", tmp_path / "moved"
    folder.mkdir()

    def move() -> None:
        folder.rename(place)
        if again:
            folder.mkdir()

    with pytest.raises(CheckpointError, match="run was moved or removed while .* step 4 cannot be saved"):
        fit(folder, [At(3, move)], max_steps=6)
    assert folder.exists() == again
    assert not list(folder.rglob("*"))
    assert fit(place, [], max_steps=6).losses == fit(tmp_path / "whole", [], max_steps=6).losses[2:]


def test_a_disk_without_room_for_another_is_noticed_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(tmp_path, [], max_steps=2)
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 100, 100))
    with pytest.raises(CheckpointError, match="no room to save step 4"):
        fit(tmp_path, [], max_steps=4)
    assert names(tmp_path) == ["step=2-last"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text * 2,
        lambda text: text.replace("{", "", 1),
        lambda text: text + '{"event": "moon", "step": 3, "phase": [1]}\n{"step": 4}\n[]\n{"event": 3, "step": 1}\n',
        lambda text: "\udcff" + text,
        lambda text: text.replace('"validation"', '"of version 9"'),
    ],
    ids=["empty", "cut", "doubled", "torn line", "from the future", "no UTF-8", "other names"],
)
def test_a_record_in_any_state_is_completed_from_the_metrics(tmp_path: Path, harm: Callable[[str], str]) -> None:
    metrics = JsonlLogger(tmp_path / "metrics.jsonl")
    fit(tmp_path, [], max_steps=8, saving=checkpointing(tmp_path, keep=2), loggers=[metrics])
    before = [(found.step, found.loss) for found in list_checkpoints(tmp_path)]
    history = CheckpointStore(tmp_path).history
    history.path.write_bytes(harm(history.path.read_text()).encode("utf-8", "surrogateescape"))
    assert [(found.step, found.loss) for found in list_checkpoints(tmp_path)] == before
    checkpoint, _ = CheckpointStore(tmp_path).recover()
    assert checkpoint is not None
    assert checkpoint.step == 8
    (tmp_path / "metrics.jsonl").unlink()
    assert [(found.step, found.loss) for found in list_checkpoints(tmp_path)] == before


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "17", '{"step": "4"}', '{"step": 4}', '{"step": 4, "files": 3}', '{"step": 4, "files": {"a": {}}}'],
)
def test_a_checkpoint_that_does_not_say_what_it_is_is_set_aside(tmp_path: Path, content: str) -> None:
    fit(tmp_path, [], max_steps=4, saving=checkpointing(tmp_path, keep=4))
    last = list_checkpoints(tmp_path)[-1].path
    (last / "checkpoint.json").write_text(content)
    checkpoint, (note,) = CheckpointStore(tmp_path).recover()
    assert checkpoint is not None
    assert (checkpoint.step, (tmp_path / "set_aside" / last.name).is_dir()) == (2, True)
    assert "4" in note


def test_a_checkpoint_of_another_run_is_set_aside_by_name(tmp_path: Path) -> None:
    folders = {lr: tmp_path / str(lr) for lr in (1, 2)}
    for lr, folder in folders.items():
        store = CheckpointStore(folder, made_from={"optim.lr": lr})
        saving = Checkpointing(store, keep=9, show=print, stop_signal=lambda: None, deadline=None)
        fit(folder, [], max_steps=4 * lr, saving=saving)
    mine, other = (folders[lr] / "checkpoints" for lr in (1, 2))
    shutil.copytree(other / "step=8-last", mine / "step=8-last")
    store = CheckpointStore(folders[1], made_from={"optim.lr": 1})
    seen = store.intact()
    checkpoint, (note,) = store.recover()
    assert checkpoint is not None
    assert checkpoint.step == 4
    assert seen == checkpoint
    assert "step 8 is of another run (optim.lr was 2, is 1)" in note
