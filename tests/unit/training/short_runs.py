"""Short runs of the training recipe inside the test process, on a random two-layer model."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from composing import sft_settings
from tiny import save_tiny_llama

from nemo_reasoning.backend.runtime import backend
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.data.prepare.pipeline import prepare_data
from nemo_reasoning.export.from_run import ensure_exported
from nemo_reasoning.models import importer
from nemo_reasoning.models.importer import convert
from nemo_reasoning.training.loggers import read_metrics
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import TrainingInputs, train


@contextmanager
def importing_here() -> Iterator[None]:
    """Import base models in this process, which has NeMo loaded, instead of one of their own."""
    with backend(cuda=False, transformer_engine=False), pytest.MonkeyPatch.context() as patch:
        patch.setattr(importer, "_import_apart", convert)
        yield


ADAPTER = ("peft.dim=4", "peft.alpha=8")
TWO = ("trainer.max_steps=2", "trainer.eval_interval=1", "trainer.keep_checkpoints=2")  # of which both are kept


def short_settings(model: Path, out: Path, *overrides: str) -> SftSettings:
    """Return the settings of a run of a few steps at a constant learning rate."""
    return sft_settings(
        *("model=hf_local", "data=builtin", f"model.source={model}", "model.template=chatml", "model.dtype=float32"),
        *("data.rows=60", "hardware=cpu", "logger=none", "callbacks.samples_interval=0", f"output_dir={out}"),
        *("trainer.precision=32", "trainer.seq_length=256", "trainer.micro_batch_size=4", "trainer.eval_interval=2"),
        *("trainer.global_batch_size=4", "trainer.max_steps=4", "optim.min_lr_ratio=1", "optim.warmup_ratio=0"),
        *overrides,
    )


def prepare_inputs(folder: Path) -> TrainingInputs:
    """Return a tiny model, imported, and rows to train on; call inside `backend`."""
    model = save_tiny_llama(folder / "hf")
    convert(model, folder / "nemo", "float32")
    formatter = ChatFormatter.load(model, template=load_template("chatml"))
    settings = short_settings(model, folder)
    prepare_data(settings.data, formatter=formatter, seq_length=256, out=folder / "data", tell=lambda line: None)
    return TrainingInputs(base=folder / "nemo", tokenizer=model, formatter=formatter, data=folder / "data")


def train_here(inputs: TrainingInputs, out: Path, *overrides: str) -> Path:
    """Train, or go on, and return the run's folder; call inside `backend`."""
    settings = short_settings(inputs.tokenizer, out, *overrides)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's and torch's about each other, attributed to us as their caller
        train(Run.start(settings), inputs, stream=io.StringIO())
    return out


def exported_run(inputs: TrainingInputs, out: Path) -> Run:
    """Return a finished run of two checkpoints, exported; call inside `importing_here`."""
    run = Run.open(train_here(inputs, out, *ADAPTER, "optim.lr=2e-2", *TWO))
    ensure_exported(run)
    return run


def losses(run: Path) -> list[float]:
    """Return the loss of each step."""
    return [record["loss"] for record in read_metrics(run / "metrics.jsonl")]
