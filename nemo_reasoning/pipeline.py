"""What recipes/sft_lora.py does, stage after stage; a finished stage is not repeated."""

import os
import time
from pathlib import Path

from rich.console import Console

from nemo_reasoning.config.model import Init
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.data.builtin import held_out
from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.data.prepare.pipeline import prepare_data
from nemo_reasoning.evaluation.report.tables import report_table
from nemo_reasoning.evaluation.report.training import Stage, evaluation_path, record_run, write_report
from nemo_reasoning.evaluation.runner import evaluate_problems
from nemo_reasoning.evaluation.training_questions import training_questions
from nemo_reasoning.export.from_run import ensure_exported
from nemo_reasoning.models.hub import PACKAGED_MODEL, BaseModel, fetch_base
from nemo_reasoning.models.importer import import_base
from nemo_reasoning.terminal import quiet_output
from nemo_reasoning.training.memory_stats import rss_peak
from nemo_reasoning.training.process import prepare_process
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import TrainingInputs, train, wanted_backend

VERIFY_PYTHON = Path(".venv-verify/bin/python")


def fine_tune(settings: SftSettings) -> Path:
    """Prepare data and base model, train, and where `evaluate` asks for it measure before and after.

    Run it again to continue: every stage that is finished is left as it is.

    Args:
        settings: The run, validated.

    Returns:
        The run's folder.
    """
    began = time.perf_counter()
    prepare_process(settings, **wanted_backend(settings))
    run = Run.start(settings)
    folder = run.path
    with quiet_output(folder / "log.txt") as terminal:
        console = Console(file=terminal, highlight=False, soft_wrap=not terminal.isatty())
        if not _first_process():
            console.quiet = True
        base = _base_model(settings)
        inputs = _prepare(settings, base, folder=folder, console=console)
        if settings.evaluate and _first_process():
            _measure("base", run, inputs, console=console)
        quiz = settings.callbacks.eval
        paper = None if quiz is None else training_questions(quiz, seed=settings.data.seed)
        train(run, inputs, stream=terminal, paper=paper)
        if settings.evaluate and _first_process():
            _measure("trained", run, inputs, console=console)
            record_run(folder, wall_seconds=time.perf_counter() - began, peak_rss_bytes=rss_peak())
            console.print(report_table(write_report(folder)))
            console.print(f"report: {folder / 'report.html'}")
        console.print(f"run: {folder}")
    return folder


def _first_process() -> bool:
    return int(os.environ.get("LOCAL_RANK", "0")) == int(os.environ.get("NODE_RANK", "0")) == 0


def _base_model(settings: SftSettings) -> BaseModel:
    """Return the base model's directory; of random weights, the one whose tokenizer they borrow."""
    random = settings.model.init is Init.random
    source, revision = (PACKAGED_MODEL, None) if random else (settings.model.source, settings.model.revision)
    return fetch_base(source, revision=revision, cache_dir=Path(settings.cache_dir).expanduser())


def _prepare(settings: SftSettings, base: BaseModel, *, folder: Path, console: Console) -> TrainingInputs:
    random = settings.model.init is Init.random
    formatter = ChatFormatter.load(base.path, template=load_template("chatml" if random else settings.model.template))
    manifest = prepare_data(
        settings.data,
        formatter=formatter,
        seq_length=settings.trainer.seq_length,
        out=folder / "data",
        tell=console.print,
    )
    counts = manifest["counts"]
    console.print(
        f"data: {counts['train']['rows']} training and {counts['validation']['rows']} validation rows, "
        f"of {counts['read']} read ({counts['quarantined']} quarantined), in {folder / 'data'}"
    )
    checkpoint = None
    if not random:
        checkpoint = import_base(base, dtype=settings.model.dtype, cache_dir=Path(settings.cache_dir).expanduser())
        console.print(f"base model: {base.name}")
    return TrainingInputs(base=checkpoint, tokenizer=base.path, formatter=formatter, data=folder / "data")


def _measure(stage: Stage, run: Run, inputs: TrainingInputs, *, console: Console) -> None:
    """Let the base or the trained model answer held-out problems, unless that has been done."""
    path, settings = evaluation_path(run.path, stage), run.settings
    if path.exists():
        return
    from nemo_reasoning.export.tokenizer import strip_generation
    from nemo_reasoning.inference.hf.engine import HFEngine

    model: Path = inputs.tokenizer
    adapter: Path | None = None
    if stage == "trained":
        python = VERIFY_PYTHON if VERIFY_PYTHON.is_file() else None
        model, adapter = ensure_exported(run, tokenizer_python=python)
    console.print(
        f"measuring {settings.evaluate} held-out problems, {'before' if stage == 'base' else 'after'} training"
    )
    engine = HFEngine(model, adapter, chat_template=strip_generation(inputs.formatter.template))
    problems = held_out(count=settings.evaluate, seed=settings.data.seed)
    evaluate_problems(engine, problems, max_new_tokens=settings.trainer.seq_length).save(path)
