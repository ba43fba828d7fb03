"""The models an evaluation measures, each loaded only when something is left to ask it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nemo_reasoning.artifacts import file_sha256
from nemo_reasoning.config.evaluate import EvaluateSettings
from nemo_reasoning.data.chat import load_template
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.inference.engine import Engine
from nemo_reasoning.training.checkpoints import content_id
from nemo_reasoning.training.run_dir import CONFIG_FILE, Run


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
    """Return the models that the settings name; of a trained adapter its base too, if it is wanted.

    Raises:
        ConfigError: They name none, or several that exclude each other.
        CheckpointError: A run has no finished checkpoint.
        ModelSourceError: There is no such model.
    """
    if (settings.checkpoint is None) == (settings.url is None):
        raise ConfigError("give either checkpoint=, such as outputs/<name>, or url= and model_name=")
    if settings.url is not None:
        if settings.model_name is None:
            raise ConfigError("model_name=null: give the name by which the server at url knows the model")
        return [_remote(settings.url, settings.model_name, settings)]
    assert settings.checkpoint is not None
    if is_run(Path(settings.checkpoint)):
        return _of_run(Run.open(Path(settings.checkpoint)), settings)
    return _of_weights(settings.checkpoint, settings)


def is_run(folder: Path) -> bool:
    """Whether recipes/sft_lora.py wrote a folder."""
    return (folder / CONFIG_FILE).is_file()


def _of_run(run: Run, settings: EvaluateSettings) -> list[Candidate]:
    """Return base and trained model of a run; the adapter is exported only when it is asked."""
    from nemo_reasoning.export.from_run import ensure_exported

    template = settings.template or run.settings.model.template
    (checkpoint, _), base = run.selected(), run.base
    trained = Candidate(
        name="trained",
        identity=f"{content_id(checkpoint)} {template}",
        load=lambda: _hf_engine(*ensure_exported(run), template),
    )
    identity = f"{base.revision} {template}"
    untrained = Candidate(name="base", identity=identity, load=lambda: _hf_engine(base.path, None, template))
    return [untrained, trained] if settings.base else [trained]


def _of_weights(source: str, settings: EvaluateSettings) -> list[Candidate]:
    from nemo_reasoning.inference.checkpoints import resolve_checkpoint

    found = resolve_checkpoint(source, cache_dir=Path(settings.cache_dir).expanduser())
    template, identity = settings.template, f"{found.base.name} {settings.template}"
    if found.adapter is None:
        return [Candidate(name="model", identity=identity, load=lambda: _hf_engine(found.base, None, template))]
    own = found.adapter / "chat_template.jinja"  # the base is asked in the adapter's format
    shown = template or (str(own) if own.is_file() else None)
    weights = file_sha256(found.adapter / "adapter_model.safetensors")
    trained = Candidate(
        name="trained",
        identity=f"{weights} {template}",
        load=lambda: _hf_engine(found.base, found.adapter, template),
    )
    untrained = Candidate(name="base", identity=identity, load=lambda: _hf_engine(found.base, None, shown))
    return [untrained, trained] if settings.base else [trained]


def _remote(url: str, model: str, settings: EvaluateSettings) -> Candidate:
    def load() -> Engine:
        from nemo_reasoning.inference.openai_client import OpenAIEngine

        return OpenAIEngine(
            url, model=model, concurrency=settings.concurrency, api_key_variable=settings.api_key_variable
        )

    return Candidate(name="model", identity=f"{url} {model}", load=load)


def _hf_engine(model: Path, adapter: Path | None, template: str | None) -> Engine:
    from nemo_reasoning.export.tokenizer import strip_generation
    from nemo_reasoning.inference.hf.engine import HFEngine

    return HFEngine(model, adapter, chat_template=None if template is None else strip_generation(_text_of(template)))


def _text_of(template: str) -> str:
    """Return the text of a template; an exported one is stripped of its generation blocks already."""
    return Path(template).read_text(encoding="utf-8") if Path(template).is_file() else load_template(template)
