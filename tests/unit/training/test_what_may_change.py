"""What may change between the starts of a run, and what may not: each is tried, and docs/training.md has the table."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from composing import change, sft_settings
from short_runs import losses, train_here

from nemo_reasoning.config.data import Order
from nemo_reasoning.config.model import Init, PeftScheme
from nemo_reasoning.config.train import LoggerBackend, SftSettings
from nemo_reasoning.config.trainer import Fp8, OptimKind, Recompute
from nemo_reasoning.errors import CheckpointError, ConfigError
from nemo_reasoning.training.checkpoints import seal
from nemo_reasoning.training.identity import Identity
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import TrainingInputs

DOCS = Path(__file__).resolve().parents[3] / "docs" / "training.md"
SETTINGS: dict[str, Any] = {
    "trainer.micro_batch_size": 2,
    "trainer.packing": False,
    "trainer.devices": 2,
    "trainer.num_nodes": 2,
    "trainer.recompute": Recompute.full,
    "trainer.deterministic": True,
    "trainer.max_steps": 99,
    "trainer.epochs": 9.0,
    "trainer.eval_interval": 7,
    "trainer.keep_checkpoints": 4,
    "trainer.hours": 2.0,
    "trainer.max_hours": 1.5,
    "trainer.max_skipped_steps": 2,
    "trainer.peer_timeout": 9.0,
    "callbacks.samples_interval": 3,
    "logger.backend": LoggerBackend.none,
    "data.workers": 3,
    "data.paths": ["elsewhere/rows.jsonl"],
    "cache_dir": "elsewhere/cache",
    "name": "other",
    "evaluate": 3,
    "backend.transformer_engine": False,
    "trainer.gc_interval": 5,
    "trainer.tensor_model_parallel_size": 2,
    "trainer.pipeline_model_parallel_size": 2,
    "trainer.sequence_parallel": True,
    "model.source": "elsewhere/base",
    "model.template": "elsewhere/chatml.jinja",
    "data.seed": 3,
    "data.order": Order.curriculum,
    "data.validation_share": 0.3,
    "data.thinking_off_share": 0.9,
    "peft.scheme": PeftScheme.dora,
    "peft.dim": 3,
    "peft.alpha": 3.0,
    "peft.dropout": 0.5,
    "peft.target_modules": ["linear_qkv"],
    "optim.kind": OptimKind.fused_adamw,
    "optim.lr": 0.5,
    "optim.warmup_ratio": 0.5,
    "trainer.seed": 3,
    "trainer.seq_length": 64,
    "trainer.global_batch_size": 4,
    "trainer.precision": "32",
    "trainer.fp8": Fp8.delayed,
    "trainer.tf32": True,
    "peft.rslora": False,
    "optim.weight_decay": 0.5,
    "optim.clip_grad": 0.5,
    "data.rows": 7,
    "data.filters.max_tokens": 64,
    "model.init": Init.random,
    "model.dtype": "bfloat16",
}
ALONE = ("peft.dim=4", "peft.dropout=0")  # dropout draws by micro-batch
CONTENT = {
    "rows": "the prepared rows, wherever their files lie",
    "template": "the text of the chat template",
    "tokenizer": "the tokenizer",
    "base": "the base model's weights",
}


SAVED = Identity(**dict.fromkeys(CONTENT, "one"))


def settings_in(folder: Path) -> SftSettings:
    """Return the settings of the run in a folder."""
    settings = sft_settings("hardware=cpu")
    settings.output_dir = str(folder)
    return settings


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with a finished checkpoint that holds no model."""
    run = Run.start(settings_in(tmp_path_factory.mktemp("saved") / "run"))
    run.claim(SAVED)
    path = run.path / "checkpoints" / "step=2-last"
    (path / "weights").mkdir(parents=True)
    seal(path, step=2)
    return run.path


def may_change(saved: Path, folder: Path, key: str, value: Any) -> bool:
    """Whether a run with a checkpoint goes on with another value."""
    settings = settings_in(shutil.copytree(saved, folder))
    change(settings, key, value)
    try:
        Run.start(settings).claim(SAVED)
    except CheckpointError as error:
        if key.partition(".")[0] not in str(error):
            raise
        return False
    return True


def test_the_table_in_the_docs_is_what_happens(saved: Path, tmp_path: Path) -> None:
    lines = ["| setting | may change between starts |", "|---|---|"]
    for number, (key, value) in enumerate(SETTINGS.items()):
        lines.append(f"| `{key}` | {'yes' if may_change(saved, tmp_path / str(number), key, value) else 'no'} |")
    for name, words in CONTENT.items():
        run = Run.start(settings_in(shutil.copytree(saved, tmp_path / name)))
        with pytest.raises(CheckpointError, match="another run"):
            run.claim(replace(SAVED, **{name: "other"}))
        lines.append(f"| {words} | no |")
    table = "\n".join(lines)
    assert table in DOCS.read_text(encoding="utf-8"), f"docs/training.md is to hold this table:\n{table}"


def test_hours_fit_the_steps_once(saved: Path, tmp_path: Path) -> None:
    settings = settings_in(shutil.copytree(saved, tmp_path / "run"))
    for hours, refused in ((2.0, False), (3.0, True), (None, False)):
        change(settings, "trainer.hours", hours)
        if refused:
            with pytest.raises(CheckpointError, match=r"trainer.hours was 2.0, is 3.0.*trainer.max_steps"):
                Run.start(settings)
        else:
            run = Run.start(settings)
            run.claim(run.identity)


def contents(folder: Path) -> dict[Path, bytes]:
    """Return what each file holds, but for who started last."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock.json"}


def test_a_refused_start_changes_nothing(saved: Path, tmp_path: Path) -> None:
    settings = settings_in(shutil.copytree(saved, tmp_path / "run"))
    before = contents(tmp_path)
    change(settings, "model.source", "elsewhere")
    with pytest.raises(CheckpointError, match="base weights"):
        Run.start(settings).claim(Identity(base="other"))
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="output_dir=.*cannot be written"):
        Run.start(sft_settings("hardware=cpu", f"output_dir={tmp_path / 'file' / 'run'}"))


def test_a_kill_behind_the_last_save_leaves_no_checkpoint_too_many(
    inputs: TrainingInputs, tmp_path: Path, nemo_cpu: None
) -> None:
    def checkpoints() -> list[str]:
        return [found.path.name for found in Run.open(run).checkpoints]

    run = train_here(inputs, tmp_path / "run", "trainer.max_steps=2", "trainer.eval_interval=1")
    (first, last), left = Run.open(run).checkpoints, checkpoints()
    first.path.rename(first.path.with_name("step=1-last"))  # as it was while it was the last
    assert left != checkpoints()
    train_here(inputs, run, "trainer.max_steps=2", "trainer.eval_interval=1")
    assert left == checkpoints()
    train_here(inputs, run, "trainer.max_steps=2", "trainer.eval_interval=1", "trainer.keep_checkpoints=0")
    assert [found.path for found in Run.open(run).checkpoints] == [last.path]


@pytest.mark.slow
def test_what_may_change_leaves_the_losses(inputs: TrainingInputs, tmp_path: Path, nemo_cpu: None) -> None:
    whole = losses(train_here(inputs, tmp_path / "whole", *ALONE, "trainer.max_steps=6"))
    run = train_here(inputs, tmp_path / "parts", *ALONE, "trainer.max_steps=2")
    changed = ("trainer.micro_batch_size=2", "trainer.packing=false", "trainer.keep_checkpoints=3", "name=other")
    run = train_here(inputs, run, *ALONE, "trainer.max_steps=4", *changed)
    run = train_here(inputs, run, *ALONE, "trainer.max_steps=6", "trainer.eval_interval=1", "logger=tensorboard")
    assert losses(run) == pytest.approx(whole, rel=1e-5)
    assert [found.step for found in Run.open(run).checkpoints][-1] == 6
    with pytest.raises(ConfigError, match="6 steps already, and 5 are asked for"):
        train_here(inputs, run, *ALONE, "trainer.max_steps=5")
