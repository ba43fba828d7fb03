"""Base models whose weights are not whole, or not those of their config.json, are refused before training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import save_tiny_llama

from nemo_reasoning.errors import ModelSourceError
from nemo_reasoning.models.hub import fetch_base
from nemo_reasoning.models.weights import check_weights

Weights = dict[str, torch.Tensor]
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEAD, GATE = "lm_head.weight", "model.layers.1.mlp.gate_proj.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Return the weights of a tiny model."""
    return load_file(save_tiny_llama(tmp_path_factory.mktemp("tiny")) / SINGLE)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return the folder of a tiny model."""
    return save_tiny_llama(tmp_path / "base")


def configure(base: Path, **changes: Any) -> None:
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def store(base: Path, weights: Weights) -> None:
    save_file(weights, base / SINGLE, metadata={"format": "pt"})


def shard(base: Path, weights: Weights, *, kind: str = ".safetensors") -> None:
    """Replace the file by two shards and their index."""
    (base / SINGLE).unlink()
    stem = "model" if kind == ".safetensors" else "pytorch_model"
    homes = {name: f"{stem}-{number % 2}{kind}" for number, name in enumerate(weights)}
    for file in set(homes.values()):
        part = {name: weight.contiguous() for name, weight in weights.items() if homes[name] == file}
        save_file(part, base / file) if kind == ".safetensors" else torch.save(part, base / file)
    (base / f"{stem}{kind}.index.json").write_text(json.dumps({"weight_map": homes}))


def pickle_whole(base: Path, weights: Weights, *, legacy: bool = False) -> None:
    (base / SINGLE).unlink()
    torch.save(weights, base / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)


def without(weights: Weights, name: str) -> Weights:
    return {key: weight for key, weight in weights.items() if key != name}


def tie(base: Path, weights: Weights) -> None:
    configure(base, tie_word_embeddings=True)
    store(base, weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()})


@pytest.mark.parametrize(
    "change",
    [
        lambda base, weights: None,
        lambda base, weights: shard(base, weights),
        lambda base, weights: shard(base, weights, kind=".bin"),
        lambda base, weights: pickle_whole(base, weights),
        lambda base, weights: pickle_whole(base, weights, legacy=True),
        lambda base, weights: store(base, {name: weight.half() for name, weight in weights.items()}),
        lambda base, weights: store(base, weights | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}),
        lambda base, weights: (
            configure(base, tie_word_embeddings=True),
            store(base, without(weights, HEAD)),
        ),
        tie,
        lambda base, weights: torch.save({}, base / "training_args.bin"),
    ],
    ids=["whole", "shards", "bin shards", "bin", "old bin", "float16", "old buffers", "tied", "tied twice", "other"],
)
def test_bases_as_they_are_found(base: Path, tiny: Weights, change: Callable[[Path, Weights], None]) -> None:
    change(base, tiny)
    check_weights(base, name="mine")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda base, weights: store(base, without(weights, GATE)), f"lacks 1 of its .* such as {GATE}"),
        (
            lambda base, weights: store(base, without(weights, HEAD)),
            "no lm_head.*tie_word_embeddings=false",
        ),
        (lambda base, weights: configure(base, tie_word_embeddings=True), "not its embedding.*set that to false"),
        (
            lambda base, weights: store(base, weights | {"model.layers.0.mlp.up_proj.bias": torch.ones(3)}),
            "up_proj.bias",
        ),
        (lambda base, weights: configure(base, vocab_size=512), r"embed_tokens.* of shape \[.*\[512, 64\]|lm_head"),
        (lambda base, weights: configure(base, num_hidden_layers=3), "lacks 9 of its"),
        (lambda base, weights: configure(base, num_hidden_layers=1), "knows nothing of"),
        (lambda base, weights: store(base, {k.removeprefix("model."): w for k, w in weights.items()}), "lacks"),
        (lambda base, weights: store(base, {k: w.to(torch.float8_e4m3fn) for k, w in weights.items()}), "F8_E4M3"),
        (lambda base, weights: store(base, {k: w.to(torch.int8) for k, w in weights.items()}), "I8.*not quantized"),
        (lambda base, weights: (base / SINGLE).write_bytes((base / SINGLE).read_bytes()[:-9]), "broken model.safe"),
        (lambda base, weights: (base / SINGLE).write_bytes(b""), "broken model.safe"),
        (
            lambda base, weights: (base / SINGLE).write_text("version https://git-lfs.github.com/spec/v1"),
            "git lfs pull",
        ),
        (lambda base, weights: (shard(base, weights), (base / "model-1.safetensors").unlink()), "lacks model-1.safe"),
        (lambda base, weights: (shard(base, weights), (base / INDEX).write_text("{")), f"broken {INDEX}"),
        (lambda base, weights: (shard(base, weights), (base / INDEX).write_text("{}")), f"broken {INDEX}.*weight_map"),
        (lambda base, weights: (shard(base, weights), (base / INDEX).unlink()), "none of model.safetensors"),
        (lambda base, weights: (base / INDEX).write_text('{"weight_map": {}}'), "both model.safetensors and"),
        (
            lambda base, weights: (pickle_whole(base, weights), torch.save([1], base / "pytorch_model.bin")),
            "else than w",
        ),
        (
            lambda base, weights: (pickle_whole(base, weights), (base / "pytorch_model.bin").write_bytes(b"PK cut")),
            "broken pytorch_model.bin",
        ),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_weights_that_would_be_trained_as_something_else(
    base: Path, tiny: Weights, change: Callable[[Path, Weights], None], words: str
) -> None:
    change(base, tiny)
    with pytest.raises(ModelSourceError, match=f"^model.source=mine .*({words})"):
        check_weights(base, name="mine")


@pytest.mark.parametrize(
    ("files", "name", "words"),
    [
        ({"adapter_config.json": '{"base_model_name_or_path": "org/chat"}'}, ".", "an adapter.*org/chat"),
        ({"adapter_config.json": "{"}, ".", "an adapter.*its base"),
        ({"model.gguf": ""}, ".", "GGUF"),
        ({"model.gguf": ""}, "model.gguf", "GGUF"),
        ({"run.json": "{}"}, ".", "run of this package.*merged"),
        ({}, ".", "point model.source at a Hugging Face directory"),
        ({"config.json": "{"}, ".", "not valid JSON"),
        ({"config.json": "[]"}, ".", "holds no settings"),
        ({"notes.txt": ""}, "notes.txt", "no config.json"),
    ],
)
def test_what_is_no_model_is_called_by_its_name(tmp_path: Path, files: dict[str, str], name: str, words: str) -> None:
    for file, content in files.items():
        (tmp_path / file).write_text(content)
    with pytest.raises(ModelSourceError, match=words):
        fetch_base(str(tmp_path / name), revision=None, cache_dir=tmp_path / "cache")
