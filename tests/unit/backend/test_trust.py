"""A checkpoint is read if it names what NeMo writes, and refused before anything else runs."""

import functools
import io
import json
import os
import pickle
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch.distributed.checkpoint import FileSystemWriter, save

from nemo_reasoning.backend.trust import check_context, check_weights, limited_load
from nemo_reasoning.errors import CheckpointError


class Calls:
    """Unpickled, it calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


def attacks(marker: Path) -> list[Calls]:
    shell = f"touch {marker}"
    inner = pickle.dumps(Calls(os.system, shell))
    return [
        Calls(os.system, shell),
        Calls(eval, f"__import__('os').system({shell!r})"),
        Calls(getattr, "text", "upper"),
        Calls(subprocess.check_output, ["touch", str(marker)]),
        Calls(cloudpickle.loads, inner),
        Calls(functools.partial, os.system, shell),
        Calls(torch.load, io.BytesIO(inner)),
        Calls(torch.hub.load, str(marker.parent), "model"),
        Calls(torch.storage._load_from_bytes, inner),
    ]


def test_what_nemo_writes_is_read() -> None:
    tensor = torch.arange(3.0)
    written = {"dtype": torch.bfloat16, "path": Path("nemo_tokenizer"), "activation": torch.nn.functional.silu}
    read = limited_load(io.BytesIO(pickle.dumps({**written, "tensor": tensor})))

    assert torch.equal(read.pop("tensor"), tensor)
    assert read == written


@pytest.mark.parametrize("number", range(9))
def test_a_pickle_that_calls_anything_else_is_refused(tmp_path: Path, number: int) -> None:
    marker = tmp_path / "it ran"
    data = pickle.dumps({"dtype": attacks(marker)[number]})
    with pytest.raises((CheckpointError, pickle.UnpicklingError)):
        limited_load(io.BytesIO(data))
    assert not marker.exists()


def context(folder: Path, module: str, name: str, **arguments: object) -> Path:
    """Write a context whose root calls a function."""
    leaves = [[f"Attr(name='{key}')", {"type": "leaf", "value": value}] for key, value in arguments.items()]
    fiddle = {"type": "pyref", "module": "fiddle._src.config", "name": "Config"}
    called = {"type": "pyref", "module": module, "name": name}
    root = {"type": fiddle, "items": leaves, "metadata": called, "paths": ["<root>.model"]}
    written = {"root": {"type": "ref", "key": "model"}, "objects": {"model": root}, "version": "0.0.1"}
    (folder / "io.json").write_text(json.dumps(written), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("subprocess", "check_output"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("nemo.lightning.io.mixin", "load"),
        ("nemo.lightning.pytorch.trainer", "Path.unlink"),
        ("nemo.collections.llm.gpt.model.llama", "torch.hub.load"),
        ("megatron.core.transformer.utils", "os.system"),
        ("a_module_in_this_folder", "Model"),
    ],
)
def test_a_context_that_names_anything_else_is_refused(tmp_path: Path, module: str, name: str) -> None:
    with pytest.raises(CheckpointError, match=f"io.json names {module}.{name}, .* nothing of it was run"):
        check_context(context(tmp_path, module, name))


def test_a_context_cannot_ask_for_remote_code(tmp_path: Path) -> None:
    tokenizer = ("nemo.collections.common.tokenizers.huggingface.auto_tokenizer", "AutoTokenizer")
    check_context(context(tmp_path, *tokenizer, trust_remote_code=False))
    for value in (True, 1, "yes"):
        with pytest.raises(CheckpointError, match="io.json sets trust_remote_code"):
            check_context(context(tmp_path, *tokenizer, trust_remote_code=value))


@pytest.mark.usefixtures("nemo_cpu")
def test_nemo_reads_contexts_through_it(tmp_path: Path) -> None:
    from nemo.lightning import io as nemo_io

    marker = tmp_path / "it ran"
    with pytest.raises(CheckpointError, match="os.system"):
        nemo_io.load_context(context(tmp_path, "os", "system", command=f"touch {marker}"), subpath="model")
    assert not marker.exists()


def saved(folder: Path, kept: object) -> Path:
    """Return a distributed checkpoint of a tensor, and of something that a layer keeps besides."""
    save({"weight": torch.ones(3), "kept": kept}, storage_writer=FileSystemWriter(folder / "weights"), no_dist=True)
    return folder / "weights"


def in_a_tensor(value: object) -> torch.Tensor:
    """Return what Transformer Engine makes of a layer's state."""
    return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)


def in_a_file(value: object) -> io.BytesIO:
    """Return what Megatron makes of a layer's state."""
    data = io.BytesIO()
    torch.save(value, data)
    return data


def test_what_layers_keep_is_read(tmp_path: Path) -> None:
    scales = {"scale": torch.ones(2), "recipe": None}
    nothing = torch.zeros(0, dtype=torch.uint8)
    for number, kept in enumerate((None, io.BytesIO(), *map(in_a_file, (None, nothing, in_a_tensor(scales))))):
        check_weights(saved(tmp_path / str(number), kept))
    check_weights(tmp_path)  # nothing to check


def test_metadata_cannot_call_anything(tmp_path: Path) -> None:
    marker, weights = tmp_path / "it ran", saved(tmp_path, None)
    (weights / ".metadata").write_bytes(pickle.dumps(Calls(os.system, f"touch {marker}")))
    with pytest.raises(CheckpointError, match=r"\.metadata names (posix|os)\.system"):
        check_weights(weights)
    (weights / ".metadata").write_bytes(b"\x80\x04\x95")
    with pytest.raises(CheckpointError, match=r"\.metadata is damaged"):
        check_weights(weights)
    (weights / ".metadata").write_bytes(pickle.dumps({"storage_data": {}}))
    with pytest.raises(CheckpointError, match="holds no metadata of a checkpoint"):
        check_weights(weights)
    assert not marker.exists()


@pytest.mark.parametrize("elsewhere", ["../secret", "/etc/hostname", "a/b"])
def test_metadata_names_only_files_beside_it(tmp_path: Path, elsewhere: str) -> None:
    weights = saved(tmp_path, None)
    metadata = check_weights(weights)
    for index, place in metadata.storage_data.items():
        metadata.storage_data[index] = replace(place, relative_path=elsewhere)
    (weights / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(CheckpointError, match=f"names {elsewhere}, no file beside it"):
        check_weights(weights)


@pytest.mark.parametrize("wrapped", [lambda value: value, in_a_file, lambda value: in_a_file(in_a_tensor(value))])
def test_nor_can_what_layers_keep(tmp_path: Path, wrapped: Callable[[object], object]) -> None:
    marker = tmp_path / "it ran"
    weights = saved(tmp_path, wrapped(Calls(os.system, f"touch {marker}")))
    with pytest.raises(CheckpointError, match=r"weights, kept, (names (posix|os)\.system|holds more than tensors)"):
        check_weights(weights)
    assert not marker.exists()
