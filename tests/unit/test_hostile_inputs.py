"""What others wrote cannot leave its folder, run anything, or take all memory; test_trust.py has the pickles."""

import gzip
import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import save_tiny_llama

from nemo_reasoning import cli
from nemo_reasoning.data.prepare.formats import Format
from nemo_reasoning.data.prepare.unpack import Unpack, _chunks
from nemo_reasoning.errors import ConfigError, DataError, EngineError, ModelSourceError, NemoReasoningError
from nemo_reasoning.inference.hf.multi_lora import MultiLora
from nemo_reasoning.inference.tokenizer import load_chat_tokenizer
from nemo_reasoning.models.weight_files import base_files
from nemo_reasoning.models.weights import check_weights
from nemo_reasoning.peft.hf_adapter import read_tensors


@pytest.mark.parametrize(
    "name", ["../stolen.safetensors", "/etc/stolen.safetensors", "a/b.safetensors", "..", "", 7, None]
)
def test_an_index_names_only_files_beside_it(tmp_path: Path, name: object) -> None:
    base = tmp_path / "base"
    base.mkdir()
    save_file({"model.norm.weight": torch.ones(2)}, tmp_path / "stolen.safetensors")
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    with pytest.raises(ModelSourceError, match=r"index.json that names .*do not use this model"):
        check_weights(base, name="mine")
    with pytest.raises(ModelSourceError, match=r"index.json that names .*do not use this model"):
        base_files(base)


def safetensors(header: object, data: bytes = b"\0" * 8, *, says: int | None = None) -> bytes:
    """Return a file whose header says whatever is wanted."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if says is None else says) + text + data


@pytest.mark.parametrize(
    "content",
    [
        safetensors({}, says=2**63),
        safetensors({}, says=10**9),
        safetensors({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}),
        safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**60]}}),
        safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}),
        safetensors({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}),
        safetensors({"a": {"dtype": "OBJECT", "shape": [2], "data_offsets": [0, 8]}}),
        safetensors({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}),
        b"",
    ],
    ids=["2**63", "10**9", "shape", "offset", "backwards", "negative", "objects", "twice", "empty"],
)
def test_a_header_of_wild_sizes_is_damage(tmp_path: Path, content: bytes) -> None:
    for name in ("adapter_model.safetensors", "model.safetensors"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=r"adapter_model.safetensors is damaged \(.*\); restore it\Z"):
        read_tensors(tmp_path)
    with pytest.raises(ModelSourceError, match=r"has a broken model.safetensors \("):
        check_weights(tmp_path, name="mine")


class Model(torch.nn.Module):
    """A model of one linear."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(2, 2, bias=False)


def test_names_of_weights_are_no_paths(tmp_path: Path) -> None:
    save_file({"../../stolen": torch.ones(2)}, tmp_path / "adapter_model.safetensors")
    assert list(read_tensors(tmp_path)[1]) == ["../../stolen"]  # a key, refused by whoever looks for a layer
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1}))
    with pytest.raises(EngineError, match="lacks the two matrices of rank 1"):
        MultiLora(Model(), {"stolen": tmp_path})


def adapter(folder: Path, **settings: Any) -> Path:
    """Write a LoRA adapter of a model's one linear, which is called `up`."""
    folder.mkdir()
    written = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(written), encoding="utf-8")
    halves = {"A": torch.ones(1, 2), "B": torch.ones(2, 1)}
    tensors = {f"base_model.model.up.lora_{half}.weight": tensor for half, tensor in halves.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def edited(edit: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Return what changes the weights of an adapter."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return change


@pytest.mark.parametrize(
    ("settings", "change", "words"),
    [
        ({"r": 0}, lambda folder: None, "r=0 and lora_alpha=1, which are no rank"),
        ({"r": "1; import os"}, lambda folder: None, "which are no rank"),
        ({"lora_alpha": None}, lambda folder: None, "which are no rank"),
        ({"peft_type": "../../etc"}, lambda folder: None, "is a ../../etc adapter"),
        ({"r": 10**9}, lambda folder: None, "lacks the two matrices of rank 1000000000"),
        ({}, edited(lambda tensors: tensors.popitem()), "lacks the two matrices of rank 1 for base_model.model.up"),
        ({}, edited(lambda tensors: next(iter(tensors.values())).fill_(float("nan"))), "numbers that are not finite"),
        ({}, edited(lambda tensors: tensors.update(x=torch.ones(2))), "lacks the two matrices of rank 1 for a layer"),
        ({}, lambda folder: (folder / "adapter_config.json").write_text("[" * 9000), "is not valid JSON"),
        ({}, lambda folder: (folder / "adapter_config.json").write_text("[1]"), "holds no settings"),
    ],
)
def test_an_adapter_beside_others_is_refused_by_name(
    tmp_path: Path, settings: dict[str, Any], change: Callable[[Path], object], words: str
) -> None:
    folder = adapter(tmp_path / "hostile", **settings)
    MultiLora(Model(), {"plain": adapter(tmp_path / "plain")})
    change(folder)
    with pytest.raises(NemoReasoningError, match=f"hostile.*{words}"):
        MultiLora(Model(), {"hostile": folder})


def test_a_tokenizer_that_brings_code_is_refused_without_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, folder = save_tiny_llama(tmp_path / "base"), adapter(tmp_path / "adapter")
    written = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(written), encoding="utf-8")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\n\nclass Evil: pass\n", encoding="utf-8")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers would ask, and run it
    with pytest.raises(EngineError, match=r"brings code of its own \(auto_map\), which would not run"):
        load_chat_tokenizer(base, folder)
    assert not (tmp_path / "it ran").exists()


def zeros(blocks: int) -> bytes:
    """Return zstd that unpacks to 128 KiB of zeros for every four bytes."""
    head, block = b"\x28\xb5\x2f\xfd\x00\x38", 131072 << 3 | 0b010
    return (
        head
        + block.to_bytes(3, "little")
        + b"\0"
        + (block.to_bytes(3, "little") + b"\0") * (blocks - 2)
        + ((block | 1).to_bytes(3, "little") + b"\0")
    )


def test_a_small_archive_does_not_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "rows.zst").write_bytes(zeros(4000))
    sizes = [len(piece) for piece in _chunks(str(tmp_path / "rows.zst"), Format.zstd)]
    assert sum(sizes) == 4000 * 131072
    assert max(sizes) <= 2**27
    (tmp_path / "rows.gz").write_bytes(gzip.compress(b'{"a": "' + b"x" * 40_000_000, 1))  # one line without an end
    tracemalloc.start()
    path = Unpack(tmp_path)((str(tmp_path / "rows.gz"), Format.gzip)).path
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size == 40_000_007
    assert peak < 10_000_000


def test_an_error_cannot_command_the_terminal() -> None:
    with pytest.raises(SystemExit) as end, cli.one_line_errors():
        raise DataError("the role is \x1b]0;owned\x07 and \x9b2J, which is none")
    assert str(end.value) == r"DataError: the role is \x1b]0;owned\x07 and \x9b2J, which is none"
