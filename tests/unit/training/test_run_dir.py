"""What a run's folder says about itself, whatever its names and times."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from composing import change, sft_settings
from omegaconf import OmegaConf
from rich.console import Console

from nemo_reasoning.errors import CheckpointError
from nemo_reasoning.training.checkpoints import Checkpoint, History, content_id, damage, seal
from nemo_reasoning.training.identity import Identity
from nemo_reasoning.training.loggers import run_id
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import _starting_checkpoint


def save(run: Path, name: str, step: int, content: bytes = b"weights") -> Path:
    """Write a finished checkpoint that holds no model."""
    path = run / "checkpoints" / name
    (path / "weights").mkdir(parents=True)
    (path / "weights" / "__0_0.distcp").write_bytes(content)
    seal(path, step=step)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a started run without checkpoints."""
    return Run.start(sft_settings("hardware=cpu", f"output_dir={tmp_path / 'run'}"))


def test_best_is_the_lowest_measured_loss_and_last_has_most_steps(run: Run) -> None:
    for name, step in (("c", 4), ("b", 8), ("step=99-val_loss=0.0000-last", 12)):
        save(run.path, name, step)
    for step, loss in ((4, 0.5), (8, 0.25), (16, 0.1)):  # of step 16 there is no checkpoint, of step 12 no measurement
        run.history.append("validation", step=step, loss=loss)
    assert [(found.step, found.loss) for found in run.checkpoints] == [(4, 0.5), (8, 0.25), (12, None)]
    assert run.best == Checkpoint(run.path / "checkpoints" / "b", 8, 0.25)
    assert run.last is not None
    assert run.last.step == 12
    assert "step 8" in run.selected()[1]


def test_without_a_measurement_there_is_no_best_and_the_last_is_used(run: Run) -> None:
    save(run.path, "a", 3)
    save(run.path, "b", 6)
    run.history.append("validation", step=6, loss=None)  # it was no number
    assert run.best is None
    checkpoint, why = run.selected()
    assert (checkpoint.step, "no checkpoint has a measured" in why) == (6, True)


def test_a_moved_run_with_other_names_and_times_chooses_the_same(run: Run, tmp_path: Path) -> None:
    for step, loss in ((4, 0.5), (8, 0.75)):
        save(run.path, f"step={step}", step)
        run.history.append("validation", step=step, loss=loss)
    moved = Path(shutil.copytree(run.path, tmp_path / "elsewhere"))
    (moved / "checkpoints" / "step=4").rename(moved / "checkpoints" / "zzz")
    os.utime(moved / "checkpoints" / "zzz", (0, 0))
    again = Run.open(moved)
    assert again.best is not None
    assert again.last is not None
    assert (again.best.step, again.last.step) == (4, 8)
    assert run.best is not None
    assert content_id(again.best) == content_id(run.best)


def test_what_was_cut_off_is_no_checkpoint(run: Run) -> None:
    path = save(run.path, "a", 3)
    save(run.path, "b", 2)
    (path / "checkpoint.json").unlink()
    (run.path / "checkpoints" / "empty").mkdir()
    (run.path / "checkpoints" / "file").write_text("")
    torn = save(run.path, "c", 9) / "checkpoint.json"
    torn.write_text(torn.read_text()[:20])
    run.history.append("save", step=2)
    assert [found.step for found in run.checkpoints] == [2]


def test_the_history_forgets_a_torn_line_and_what_comes_after_a_step(tmp_path: Path) -> None:
    history = History(tmp_path)
    for step in (2, 4, 6):
        history.append("validation", step=step, loss=1 / step)
    with history.path.open("a") as file:
        file.write('{"event": "validation", "st')
    assert history.losses() == {2: 0.5, 4: 0.25, 6: 1 / 6}
    history.drop_after(4)
    assert list(history.losses()) == [2, 4]


@pytest.mark.parametrize("harm", ["missing", "shorter", "changed"])
def test_damage_is_found_and_named(run: Run, harm: str) -> None:
    file = save(run.path, "a", 3, content=bytes(1000)) / "weights" / "__0_0.distcp"
    (checkpoint,) = run.checkpoints
    assert damage(checkpoint) is None
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes(bytes(999) + (b"" if harm == "shorter" else b"x"))
    assert "weights/__0_0.distcp" in str(damage(checkpoint))


@pytest.mark.parametrize(
    ("key", "value"),
    [("trainer.seed", 7), ("peft.dim", 3), ("optim.lr", 0.5), ("trainer.global_batch_size", 32), ("data.seed", 1)],
)
def test_a_setting_that_a_checkpoint_depends_on_may_not_change(run: Run, key: str, value: object) -> None:
    change(run.settings, key, value)
    Run.start(run.settings)  # without a checkpoint nothing depends on it
    save(run.path, "a", 3)
    change(run.settings, key, 5)
    with pytest.raises(CheckpointError, match=f"{key.partition('.')[0]}.*{value}"):
        Run.start(run.settings)


@pytest.mark.parametrize(
    ("key", "value"), [("trainer.micro_batch_size", 1), ("trainer.max_steps", 99), ("data.workers", 3), ("name", "x")]
)
def test_other_settings_may_change(run: Run, key: str, value: object) -> None:
    save(run.path, "a", 3)
    change(run.settings, key, value)
    again = Run.start(run.settings)
    assert again.settings != Run.open(run.path).settings
    again.claim(Identity())
    assert again.settings == Run.open(run.path).settings


@pytest.mark.parametrize("name", ["rows", "template", "tokenizer", "base"])
def test_other_content_is_another_run(run: Run, name: str) -> None:
    identity = Identity(rows="r", template="t", tokenizer="k", base="b")
    run.claim(Identity(rows="of an attempt that saved nothing"))
    run.claim(identity)
    save(run.path, "a", 3)
    run.claim(identity)
    with pytest.raises(CheckpointError, match="another run: the .* changed"):
        run.claim(Identity(**{**vars(identity), name: "other"}))
    assert run.identity == identity


def test_settings_recorded_by_an_earlier_version_are_completed(run: Run) -> None:
    """A key it did not have gets its default, a key this version does not have is left out."""
    config = OmegaConf.load(run.path / "config.yaml")
    OmegaConf.update(config, "trainer.steps_of_old", 3, force_add=True)
    del config.trainer["packing"], config["logger"]
    config.trainer.seed = 99
    OmegaConf.save(config, run.path / "config.yaml")
    settings = Run.open(run.path).settings
    assert (settings.trainer.packing, settings.trainer.seed) == (True, 99)


HOLD = "import sys; from pathlib import Path; from nemo_reasoning.training.run_dir import Run\n"


def test_one_process_at_a_time_writes(run: Run) -> None:
    code = HOLD + "with Run.open(Path(sys.argv[1])).locked(): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=f"process {holder.pid} on "), run.locked():
            pass
        holder.kill()
        holder.wait()
    with run.locked(), run.locked():  # the dead hold nothing, and a holder may hold twice
        assert json.loads((run.path / ".lock.json").read_text())["pid"] == os.getpid()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config.yaml"):
        Run.open(tmp_path)


@pytest.mark.parametrize("target", ["nowhere/at/all", "outputs"])
def test_a_link_to_no_folder_is_called_so(run: Run, tmp_path: Path, target: str) -> None:
    place = tmp_path / "outputs"  # the second one leads to itself
    place.symlink_to(tmp_path / target)
    change(run.settings, "output_dir", str(place))
    with pytest.raises(CheckpointError, match="outputs cannot be written to .it is a link to no folder"):
        Run.start(run.settings)


def starting_from(place: str, weights: str) -> Identity:
    return Identity(base="b", start=[{"adapter": place, "weights": weights, "start": "adapter"}])


def test_an_adapter_to_start_from_may_move_but_not_change(run: Run) -> None:
    change(run.settings, "peft.start_from", "outputs/first")
    identity = starting_from("outputs/first", "w")
    run.claim(identity)
    made_from = run.made_from(identity)
    assert "outputs/first" not in json.dumps(made_from)
    seal(save(run.path, "a", 3), step=3, made_from=made_from)

    change(run.settings, "peft.start_from", "/moved/first")
    Run.start(run.settings).claim(starting_from("/moved/first", "w"))
    for lost in (False, True):
        if lost:
            (run.path / "run.json").unlink()
        for other in (starting_from("/moved/first", "v"), Identity(base="b", start=[])):
            with pytest.raises(CheckpointError, match="another run: the adapter it starts from"):
                Run.start(run.settings).claim(other)
    change(run.settings, "peft.start_from", None)
    with pytest.raises(CheckpointError, match="another run: peft.start_from was /moved/first, is None"):
        Run.start(run.settings)


def test_the_setting_that_differs_is_named_alone(run: Run) -> None:
    save(run.path, "a", 3)
    was = run.settings.optim.lr
    change(run.settings, "optim.lr", 0.5)
    with pytest.raises(CheckpointError, match=rf"another run: optim.lr was {was}, is 0.5\. Undo"):
        Run.start(run.settings)


FOREIGN = ("model.source=/other", "optim.lr=0.5")


@pytest.mark.parametrize("gone", [(), ("run.json",), ("config.yaml",), ("run.json", "config.yaml")])
def test_checkpoints_know_what_they_were_made_from(run: Run, gone: tuple[str, ...]) -> None:
    """Whatever of a run's own files is lost, another base, row or learning rate does not continue it."""
    identity = Identity(rows="r", template="t", tokenizer="k", base="b")
    run.claim(identity)
    seal(save(run.path, "a", 3), step=3, made_from=run.made_from(identity))
    for name in gone:
        (run.path / name).unlink()
    Run.start(run.settings).claim(identity)
    for name in gone:
        (run.path / name).unlink()
    with pytest.raises(CheckpointError, match="another run: the base weights (changed|was b, is c)"):
        Run.start(run.settings).claim(Identity(**{**vars(identity), "base": "c"}))
    change(run.settings, "optim.lr", 0.5)
    with pytest.raises(CheckpointError, match=r"another run: optim(\.lr)? was .*0.5"):
        Run.start(run.settings).claim(identity)


def test_a_lost_template_is_taken_from_its_file_only_if_it_is_the_same(run: Run) -> None:
    for template, same in ((run.template, True), ("other", False)):
        identity = Identity(template=template)
        seal(save(run.path, str(same), 3), step=3, made_from=run.made_from(identity))
        if same:
            assert run.template == template
            shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(CheckpointError, match=r"run.json is missing or broken, and model.template=.* restore"):
        _ = run.template


@pytest.mark.parametrize("content", ["", "{", "[1]", "a: b: c", "trainer: 3\n", "name: [\n", "\x00", "null"])
def test_a_broken_record_of_settings_is_named(run: Run, content: str) -> None:
    save(run.path, "a", 3)
    (run.path / "config.yaml").write_text(content)
    for use in (lambda: Run.open(run.path), lambda: Run.start(run.settings)):
        with pytest.raises(CheckpointError, match=r"config.yaml is broken; restore it from a copy, or remove it"):
            use()
    (run.path / "config.yaml").unlink()
    Run.start(run.settings).claim(Identity())


@pytest.mark.parametrize("content", ["", "[1]", "- mine", "model: mine", "\x00"])
def test_settings_that_no_run_wrote_are_not_replaced(run: Run, content: str) -> None:
    (run.path / "config.yaml").write_text(content)
    with pytest.raises(CheckpointError, match=r"config.yaml was not written by a run, and would be replaced"):
        Run.start(run.settings)
    assert (run.path / "config.yaml").read_text() == content


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "\xff"])
def test_a_broken_run_json_is_written_anew(run: Run, content: str) -> None:
    save(run.path, "a", 3)
    (run.path / "run.json").write_bytes(content.encode("latin-1"))
    identity = Identity(base="b")
    run.claim(identity)
    assert run.identity == identity


@pytest.mark.parametrize("overrides", [(), ("restart=true",)])
def test_every_process_starts_from_the_same_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    """The others may look before the first one has moved a damaged checkpoint, or all of them, away."""
    run = Run.start(sft_settings("hardware=cpu", f"output_dir={tmp_path / 'run'}", *overrides))
    save(run.path, "a", 3)
    (save(run.path, "b", 6) / "weights" / "__0_0.distcp").write_bytes(b"damaged")
    metrics_id, steps = run_id(run.path), []
    for rank in ("1", "0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        found = _starting_checkpoint(run, Identity(), Console(quiet=True))
        steps.append(found and found.step)
    assert steps == [None if overrides else 3] * 3
    assert (run_id(run.path) != metrics_id) == bool(overrides)
