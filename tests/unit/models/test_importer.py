"""A base model is imported once per source, revision and dtype; a failed import leaves nothing."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from nemo_reasoning.errors import ModelSourceError
from nemo_reasoning.models import importer
from nemo_reasoning.models.hub import PACKAGED_MODEL, BaseModel
from nemo_reasoning.models.importer import FORMAT, import_base

BASE = BaseModel(name="meta-llama/Llama-3.1-8B-Instruct", path=Path("/hub/snapshot"), revision="0123456789abcdef0123")


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an executable that stands for Python, writes its arguments and environment, and succeeds."""
    script = tmp_path / "python"
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$4/arguments"; env > "$4/environment"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return script


@pytest.mark.parametrize(
    ("base", "dtype", "name"),
    [
        (BASE, "bfloat16", "llama-3.1-8b-instruct-0123456789abcdef-bfloat16"),
        (BASE, "float32", "llama-3.1-8b-instruct-0123456789abcdef-float32"),
        (replace(BASE, revision="fedcba9876543210"), "float32", "llama-3.1-8b-instruct-fedcba9876543210-float32"),
        (replace(BASE, name="/data/Llama-3.1-8B/"), "float32", "llama-3.1-8b-0123456789abcdef-float32"),
        (replace(BASE, name=PACKAGED_MODEL), "float32", "smollm2-135m-instruct.q4_1-0123456789abcdef-float32"),
    ],
)
def test_the_folder_is_named_after_source_revision_and_dtype(
    python: Path, tmp_path: Path, base: BaseModel, dtype: str, name: str
) -> None:
    imported = import_base(base, dtype=dtype, cache_dir=tmp_path / "cache")
    assert imported == tmp_path / "cache" / "nemo" / f"{name}-v{FORMAT}"


def test_an_imported_model_is_not_imported_again(python: Path, tmp_path: Path) -> None:
    first = import_base(BASE, dtype="float32", cache_dir=tmp_path)
    python.unlink()

    assert import_base(BASE, dtype="float32", cache_dir=tmp_path) == first
    with pytest.raises(FileNotFoundError):
        import_base(BASE, dtype="bfloat16", cache_dir=tmp_path)


def test_the_process_belongs_to_no_group(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placing = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "LOCAL_RANK", "SLURM_NTASKS", "TORCHELASTIC_USE_AGENT_STORE"}
    for name in (*placing, "KEPT"):
        monkeypatch.setenv(name, "1")
    imported = import_base(BASE, dtype="float32", cache_dir=tmp_path)
    names = {line.partition("=")[0] for line in (imported / "environment").read_text().splitlines()}

    assert "KEPT" in names
    assert "CUDA_VISIBLE_DEVICES=" in (imported / "environment").read_text().splitlines()
    assert not names & placing
    module, hf_path, _, dtype = (imported / "arguments").read_text().splitlines()[1:]
    assert (module, hf_path, dtype) == ("nemo_reasoning.models.importer", "/hub/snapshot", "float32")


def test_a_failure_shows_the_last_line_and_logs_the_rest(
    python: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    python.write_text("#!/bin/sh\nfor number in $(seq 30); do echo line $number; done; echo why >&2; exit 3\n")
    with pytest.raises(ModelSourceError, match="importing /hub/snapshot into NeMo failed with exit code 3: why$"):
        import_base(BASE, dtype="float32", cache_dir=tmp_path / "cache")

    assert "line 1\nline 2\n" in capfd.readouterr().err
    assert [path.suffix for path in (tmp_path / "cache" / "nemo").iterdir()] == [".lock"]


def test_a_killed_import_says_so(python: Path, tmp_path: Path) -> None:
    python.write_text("#!/bin/sh\necho loading; kill -9 $$\n")

    with pytest.raises(ModelSourceError, match="into NeMo was killed, most likely for lack of memory$"):
        import_base(BASE, dtype="float32", cache_dir=tmp_path)


def test_an_import_without_room_says_so(python: Path, tmp_path: Path) -> None:
    python.write_text("#!/bin/sh\necho 'OSError: [Errno 28] No space left on device'; echo RuntimeError; exit 1\n")
    with pytest.raises(ModelSourceError, match="found no room: .* MB are free in .*nemo; .*cache_dir$"):
        import_base(BASE, dtype="float32", cache_dir=tmp_path)


@pytest.mark.usefixtures("nemo_cpu")
def test_code_that_comes_with_a_tokenizer_is_not_run(tiny_llama: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tiny_llama / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    written = tiny_llama / "tokenizer_config.json"
    own = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "PreTrainedTokenizerFast"}
    written.write_text(json.dumps({**json.loads(written.read_text()), **own}))
    importer.convert(tiny_llama, tmp_path / "out", "float32")

    assert not marker.exists()
    kept = {path.name for path in (tmp_path / "out" / "context" / "nemo_tokenizer").iterdir()}
    assert kept >= {"tokenizer.json", "tokenizer_config.json"}
    assert not any(name.endswith((".py", ".safetensors")) for name in kept)


@pytest.mark.usefixtures("nemo_cpu")
def test_weights_that_are_no_numbers(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    weights = load_file(tiny_llama / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("inf")
    save_file(weights, tiny_llama / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(sys, "argv", ["importer", str(tiny_llama), str(tmp_path / "out"), "float32"])
    with pytest.raises(SystemExit) as ended:  # as the process of its own does
        importer.main()

    request.getfixturevalue("python").write_text(f"#!/bin/sh\necho '{ended.value.code}'; exit 1\n")
    with pytest.raises(ModelSourceError, match="NeMo was refused: model.layers.1.mlp.up_proj.weight holds NaN or inf"):
        import_base(BASE, dtype="float32", cache_dir=tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache" / "nemo").iterdir()] == [".lock"]
