"""The models an evaluation measures, each loaded only when something is left to ask it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nemo_reasoning.config_evaluation import EvaluateSettings
from nemo_reasoning.data.chat import load_template
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.inference.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model to measure.

    Attributes:
        name: "base", "trained" or "model".
        identity: What tells its answers from another model's.
        load: Returns its engine.
    """

    name: str
    identity: str
    load: Callable[[], Engine]


def candidates(settings: EvaluateSettings) -> list[Candidate]:
    """Return the models that the settings name.

    Raises:
        ConfigError: They name none, or several that exclude each other.
        CheckpointError: The run has no finished checkpoint.
    """
    if settings.checkpoint is not None:
        if settings.model_name is not None or settings.url is not None:
            raise ConfigError("checkpoint cannot be given together with model_name or url; choose one")
        return _of_run(Path(settings.checkpoint), settings)
    if settings.model_name is None:
        raise ConfigError("nothing to measure: give checkpoint=outputs/<name>, or model_name=, or url= and model_name=")
    if settings.url is not None:
        return [_remote(settings.url, settings.model_name, settings)]
    return [_local(settings.model_name, settings)]


def _of_run(run: Path, settings: EvaluateSettings) -> list[Candidate]:
    from nemo_reasoning.export.from_run import ensure_exported, run_base
    from nemo_reasoning.training.checkpoints import best_checkpoint
    from nemo_reasoning.training.run_folder import read_settings

    template = read_settings(run).model.template
    checkpoint, base = best_checkpoint(run).path, run_base(run)

    def load_trained() -> Engine:
        python = Path(settings.tokenizer_python) if settings.tokenizer_python else None
        model, adapter = ensure_exported(run, tokenizer_python=python if python and python.is_file() else None)
        return _hf_engine(model, adapter, template)

    trained = Candidate(name="trained", identity=str(checkpoint), load=load_trained)
    if not settings.base:
        return [trained]
    untrained = Candidate(name="base", identity=base.revision, load=lambda: _hf_engine(base.path, None, template))
    return [untrained, trained]


def _remote(url: str, model: str, settings: EvaluateSettings) -> Candidate:
    def load() -> Engine:
        from nemo_reasoning.inference.remote import RemoteEngine

        return RemoteEngine(
            url, model=model, concurrency=settings.concurrency, api_key_variable=settings.api_key_variable
        )

    return Candidate(name="model", identity=f"{url} {model}", load=load)


def _local(model: str, settings: EvaluateSettings) -> Candidate:
    from nemo_reasoning.models.source import fetch_base

    found = fetch_base(model, revision=None, cache_dir=Path(settings.cache_dir).expanduser())
    identity = f"{found.revision} {settings.template}"
    return Candidate(name="model", identity=identity, load=lambda: _hf_engine(found.path, None, settings.template))


def _hf_engine(model: Path, adapter: Path | None, template: str | None) -> Engine:
    from nemo_reasoning.export.tokenizer import strip_generation
    from nemo_reasoning.inference.hf import HFEngine

    text = None if template is None else strip_generation(load_template(template))
    return HFEngine(model, adapter, chat_template=text)
