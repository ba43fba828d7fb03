"""What a Hugging Face directory says about its model, in the notations of transformers 4 and 5 alike."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import cached_folder, fingerprint, write_json
from nemo_reasoning.errors import ModelSourceError

CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
_SIZES = (
    *("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "vocab_size", "max_position_embeddings"),
)
_DTYPES = ("float32", "bfloat16", "float16", "float64")
_PLAIN_TOKENIZER = "PreTrainedTokenizerFast"
_RENAMED_TOKENIZERS = ("TokenizersBackend", "TokenizersBackendFast")  # what transformers 5 calls the plain one


def read_hf_config(path: Path) -> dict[str, Any]:
    """Return the parsed config.json of a Hugging Face directory.

    Raises:
        ModelSourceError: It is missing or broken.
    """
    file = path / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelSourceError(f"{path} has no config.json; {_what_it_is(path)}") from None
    except ValueError as error:
        raise ModelSourceError(f"{file} is not valid JSON ({error}); download it again") from error
    if not isinstance(config, dict):
        raise ModelSourceError(f"{file} holds no settings of a model; download it again")
    return config


def _what_it_is(path: Path) -> str:
    """Say what a path holds instead of a model, and what to give."""
    if path.suffix == ".gguf" or (path.is_dir() and any(path.glob("*.gguf"))):
        return "a GGUF file holds weights for inference; point model.source at the model it was made of"
    if (path / "adapter_config.json").is_file():
        try:
            base = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
        except (ValueError, KeyError, TypeError):
            base = "its base"
        return f"it holds an adapter; point model.source at the model it was trained on, {base}"
    if (path / "checkpoints").is_dir() or (path / "run.json").is_file():
        return "it is a run of this package; export it with formats=[merged] and point model.source at that folder"
    return "point model.source at a Hugging Face directory"


def value_problems(config: Mapping[str, Any]) -> list[str]:
    """Return the values of a config.json that no family could read, or would read as something else."""
    problems = [
        f"has {name}={config[name]!r} in its config.json, which must be a whole number above 0; download it again"
        for name in _SIZES
        if config.get(name, 1) is not None and not (type(config.get(name, 1)) is int and config.get(name, 1) > 0)
    ]
    problems += [
        f"has {name}={config[name]!r} in its config.json, which must be a number above 0; download it again"
        for name in ("rms_norm_eps", "rope_theta")
        if config.get(name) is not None and not (type(config[name]) in (int, float) and config[name] > 0)
    ]
    problems += [
        f"has {name}={config[name]!r} in its config.json, which must be a mapping or null; download it again"
        for name in ("rope_scaling", "rope_parameters")
        if not isinstance(config.get(name, {}), Mapping | None)
    ]
    problems += [
        f"has {name}={config[name]!r} in its config.json, which is no dtype of weights; it has to be one of "
        f"{', '.join(_DTYPES)}, or left out"
        for name in ("torch_dtype", "dtype")
        if config.get(name) is not None and str(config[name]) not in _DTYPES
    ]
    if nested := [name for name in ("text_config", "vision_config") if name in config]:
        problems.append(f"describes several models ({', '.join(nested)}); take the text model alone")
    return problems or _unheld(config)


def _unheld(config: Mapping[str, Any]) -> list[str]:
    """Return what Megatron's rotary embedding and grouped queries cannot be."""
    rope, problems = config.get("rope_parameters") or {}, []
    if any(isinstance(value, Mapping) for value in rope.values()):
        problems.append(f"has a rotary embedding by kind of layer ({', '.join(rope)}); choose a model with one")
        return problems
    for given in (config, rope):
        if given.get("partial_rotary_factor") not in (None, 1):
            problems.append(
                f"has partial_rotary_factor={given['partial_rotary_factor']}, but all of it would be turned"
            )
        base = given.get("rope_theta")
        if isinstance(base, float) and not base.is_integer():
            problems.append(f"has rope_theta={base}, of which NeMo would drop the fraction")
    heads, groups = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if heads and groups and heads % groups:
        problems.append(f"has num_attention_heads={heads}, no multiple of num_key_value_heads={groups}")
    return problems


def rope_of(config: Mapping[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """Return base and scaling of the rotary embedding, in whichever notation they are given; None without scaling.

    Transformers 4 writes `rope_theta` and `rope_scaling`, transformers 5 `rope_parameters`; a scaling's kind is
    called `rope_type`, or `type` by older releases, and the kind "default" is none.

    Raises:
        ValueError: Two notations are given and disagree, or kinds of layers have embeddings of their own.
    """
    new, old = config.get("rope_parameters"), config.get("rope_scaling")
    for given in (new, old):
        if given is not None and (
            not isinstance(given, Mapping) or any(isinstance(part, Mapping) for part in given.values())
        ):
            raise ValueError(f"gives no single rotary embedding for all layers: {given}")
    bases = [given["rope_theta"] for given in (new or {}, config) if given.get("rope_theta") is not None]
    for base in bases:
        if isinstance(base, bool) or not isinstance(base, int | float) or base <= 0:
            raise ValueError(f"gives rope_theta={base!r}, which is no base of a rotary embedding")
    if len(set(map(float, bases))) > 1:
        raise ValueError(f"gives two bases of the rotary embedding, {bases[0]} and {bases[1]}")
    scalings = [_scaling(given) for given in (new, old) if given is not None]
    if len(scalings) == 2 and scalings[0] != scalings[1]:
        raise ValueError(f"gives two scalings of the rotary embedding, rope_parameters={new} and rope_scaling={old}")
    return float(bases[0]) if bases else 10000.0, scalings[0] if scalings else None


def _scaling(given: Mapping[str, Any]) -> dict[str, Any] | None:
    kinds = [given[key] for key in ("rope_type", "type") if given.get(key) is not None]
    if len(set(kinds)) > 1:
        raise ValueError(f"gives two kinds of scaling of the rotary embedding: {dict(given)}")
    if not kinds or kinds[0] == "default":
        return None
    rest = {key: value for key, value in given.items() if key not in ("rope_type", "type", "rope_theta")}
    return {"rope_type": kinds[0], **rest}


def readable_by_all(path: Path, *, name: str, cache_dir: Path) -> Path:
    """Return a Hugging Face directory that transformers 4 and 5, and NeMo, read alike: itself, or a view of it.

    A view links to the files, but for the two configurations, which it holds in the older notation: transformers 4
    and NeMo's importer ignore `rope_parameters` in silence.
    """
    config, tokenizer = read_hf_config(path), read_tokenizer_config(path)
    changed: dict[str, dict[str, Any]] = {}
    if "rope_parameters" in config or (config.get("rope_scaling") is not None and rope_of(config)[1] is None):
        base, scaling = rope_of(config)
        kept = {key: value for key, value in config.items() if key not in ("rope_parameters", "rope_scaling")}
        changed[CONFIG] = {**kept, "rope_theta": base, "rope_scaling": scaling}
    if tokenizer.get("tokenizer_class") in _RENAMED_TOKENIZERS and (path / "tokenizer.json").is_file():
        changed[TOKENIZER_CONFIG] = {**tokenizer, "tokenizer_class": _PLAIN_TOKENIZER}
    if not changed:
        return path

    def build(out: Path) -> None:
        for file in path.iterdir():
            if file.is_file() and file.name not in changed:
                (out / file.name).symlink_to(file.resolve())
        for file_name, content in changed.items():
            write_json(out / file_name, content)

    key = fingerprint([str(path.resolve()), changed, sorted(file.name for file in path.iterdir())])
    return cached_folder(cache_dir / "hf" / f"{Path(name).name.lower()}-{key}", build)


def read_tokenizer_config(path: Path) -> dict[str, Any]:
    """Return the parsed tokenizer_config.json of a Hugging Face directory; nothing where there is none.

    Raises:
        ModelSourceError: It is broken, or names code that would have to run.
    """
    try:
        found: dict[str, Any] = json.loads((path / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelSourceError(f"{path / TOKENIZER_CONFIG} is not valid JSON ({error}); download it again") from error
    if not isinstance(found, dict):
        raise ModelSourceError(f"{path / TOKENIZER_CONFIG} holds no settings of a tokenizer; download it again")
    if found.get("auto_map"):
        raise ModelSourceError(
            f"{path / TOKENIZER_CONFIG} brings code of its own (auto_map), which would not run; choose a model whose "
            "tokenizer.json is enough"
        )
    return found


def in_dtype(dtype: Any) -> dict[str, Any]:
    """Return what sets the dtype of weights in `from_pretrained`: `torch_dtype` before transformers 4.56."""
    from transformers import PretrainedConfig

    return {"dtype" if "dtype" in inspect.signature(PretrainedConfig.__init__).parameters else "torch_dtype": dtype}
