"""The models an evaluation measures, each loaded only when something is left to ask it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_reasoning.artifacts import file_sha256
from nemo_reasoning.config.adapter import is_run
from nemo_reasoning.config.evaluate import EvaluateSettings
from nemo_reasoning.config.inference import EngineKind, Precision
from nemo_reasoning.errors import CheckpointError
from nemo_reasoning.inference.engine import Engine
from nemo_reasoning.models.hub import BaseModel, fetch_base
from nemo_reasoning.reasoning.switch import template_arguments
from nemo_reasoning.training.checkpoints import content_id
from nemo_reasoning.training.run_dir import Run

if TYPE_CHECKING:
    from nemo_reasoning.inference.checkpoints import ModelFiles
    from nemo_reasoning.inference.openai_client import RemoteModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model to measure.

    Attributes:
        name: "base", "trained" or "model"; "start" is the first stage that a second one began from.
        identity: What tells its answers from another model's.
        load: Returns its engine.
    """

    name: str
    identity: str
    load: Callable[[], Engine]


def candidates(settings: EvaluateSettings) -> list[Candidate]:
    """Return the models that validated settings name, of a trained adapter what it began from too, if it is wanted.

    Raises:
        CheckpointError: A run has no finished checkpoint, or the adapter it began from holds other weights now.
        ModelSourceError: There is no such model.
    """
    if settings.url is not None:
        return [_remote(settings.url, settings.model_name or "", settings)]
    assert settings.checkpoint is not None
    if is_run(settings.checkpoint):
        return _of_run(Run.open(Path(settings.checkpoint)), settings)
    return _of_weights(settings)


def _of_run(run: Run, settings: EvaluateSettings) -> list[Candidate]:
    """Return base and trained model of a run, and its first stage; an adapter is exported only when it is asked."""
    template = settings.template or run.settings.model.template
    checkpoint, _ = run.selected()
    trained = Candidate(
        name="trained",
        identity=_identity(f"{content_id(checkpoint)} {template}", settings),
        load=lambda: _load(_resolved(settings).with_template(template), settings),
    )
    if not settings.base:
        return [trained]
    before = [
        Candidate(
            name=name,
            identity=_identity(f"{identity} {template}", settings),
            load=partial(_load_in_format, files, template, settings),
        )
        for name, identity, files in _before_training(run)
    ]
    return [*before, trained]


def _before_training(run: Run) -> Iterator[tuple[str, str, "Callable[[], ModelFiles]"]]:
    """Yield name, identity and files of what a run began from: its base, and the adapter of its first stage."""
    peft, model = run.settings.peft, run.settings.model
    if peft.start_from is None:
        yield "base", run.base.revision, partial(_files, run.base.path)
        return
    base = run.base
    if peft.merges_start:
        cache_dir = Path(run.settings.cache_dir).expanduser()
        original = fetch_base(model.source, revision=model.revision, cache_dir=cache_dir)
        yield "base", original.revision, partial(_files, original.path)
        yield "start", base.revision, partial(_files, base.path)
        return
    yield "base", base.revision, partial(_files, base.path)
    weights = run.identity.start[-1]["weights"] if run.identity.start else ""
    yield "start", f"{base.revision} {weights}", partial(_first_stage, peft.start_from, base, weights)


def _first_stage(start_from: str, base: BaseModel, weights: str) -> "ModelFiles":
    from nemo_reasoning.export.from_run import adapter_folder
    from nemo_reasoning.peft.hf_adapter import weights_file

    folder, _ = adapter_folder(start_from, base)
    if file_sha256(weights_file(folder)) != weights:
        raise CheckpointError(
            f"peft.start_from={start_from} holds other weights than the run began from; restore them, or measure the "
            "run alone with base=false"
        )
    return replace(_files(base.path), adapter=folder)


def _load_in_format(files: "Callable[[], ModelFiles]", template: str, settings: EvaluateSettings) -> Engine:
    return _load(files().with_template(template), settings)


def _of_weights(settings: EvaluateSettings) -> list[Candidate]:
    files = _resolved(settings)
    shown = files.with_template(settings.template)
    if files.adapter is None:
        identity = _identity(f"{files.base.name} {settings.template}", settings)
        return [Candidate(name="model", identity=identity, load=lambda: _load(shown, settings))]
    from nemo_reasoning.peft.hf_adapter import weights_file

    weights = file_sha256(weights_file(files.adapter))
    trained = Candidate(
        name="trained",
        identity=_identity(f"{weights} {settings.template}", settings),
        load=lambda: _load(shown, settings),
    )
    untrained = Candidate(
        name="base",
        identity=_identity(f"{files.base.name} {settings.template}", settings),
        load=lambda: _load(shown.without_adapter(), settings),  # asked in the adapter's format
    )
    return [untrained, trained] if settings.base else [trained]


def _identity(weights: str, settings: EvaluateSettings) -> str:
    """Return what tells a model's answers from others': its weights, and an engine or precision of choice."""
    kind, dtype = settings.engine.kind, settings.engine.dtype
    chosen = [kind.value] if kind is not EngineKind.hf else []
    return " ".join([weights, *chosen, *([dtype.value] if dtype is not Precision.auto else [])])


def _resolved(settings: EvaluateSettings) -> "ModelFiles":
    from nemo_reasoning.inference.checkpoints import resolve_checkpoint

    return resolve_checkpoint(settings.checkpoint or "", cache_dir=Path(settings.cache_dir).expanduser())


def _files(base: Path) -> "ModelFiles":
    from nemo_reasoning.inference.checkpoints import ModelFiles

    return ModelFiles(base.name, base)


def _load(files: "ModelFiles | RemoteModel", settings: EvaluateSettings) -> Engine:
    from nemo_reasoning.inference.load import load_engine

    return load_engine(settings.engine, files)


def _remote(url: str, model: str, settings: EvaluateSettings) -> Candidate:
    from nemo_reasoning.inference.checkpoints import template_text

    arguments = () if settings.template is None else template_arguments(template_text(settings.template))

    def load() -> Engine:
        from nemo_reasoning.inference.openai_client import RemoteModel

        where = RemoteModel(
            url=url,
            name=model,
            concurrency=settings.concurrency,
            api_key_variable=settings.api_key_variable,
            arguments=arguments,
        )
        return _load(where, settings)

    return Candidate(name="model", identity=" ".join([url, model, *arguments]), load=load)
