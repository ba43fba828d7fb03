import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from launch import ROOT

from nemo_reasoning.config import CONF_DIR, load_settings
from nemo_reasoning.config.data import PrepareSettings, validate
from nemo_reasoning.data.store import TokenStore
from nemo_reasoning.errors import ConfigError

RECIPE = ROOT / "recipes" / "prepare_data.py"


def _settings(*overrides: str) -> PrepareSettings:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return load_settings(compose("prepare_data", overrides=list(overrides)), PrepareSettings)


@pytest.mark.parametrize(
    "overrides",
    [
        ("data=builtin",),
        ("data=jsonl", "data.paths=[a.jsonl]"),
        ("data=nemotron",),
        ("data=local", "data.root=/data"),
    ],
)
def test_every_group_composes(overrides: tuple[str, ...]) -> None:
    validate(_settings(*overrides))


def test_subsets_given_replace_those_of_the_group() -> None:
    assert _settings("data=nemotron").data.subsets == {"math": 50000, "code": 20000, "science": 5000}
    assert _settings("data=nemotron", "data.subsets={math: 7, chat: null}").data.subsets == {"math": 7, "chat": None}


def test_impossible_settings_are_refused_together() -> None:
    chosen = _settings("data=nemotron", "data.subsets={}", "data.validation_share=2", "data.workers=0", "preview=-1")
    with pytest.raises(ConfigError) as caught:
        validate(chosen)
    for key in ("data.subsets={}", "data.validation_share=2", "data.workers=0", "preview=-1"):
        assert key in str(caught.value)


def test_the_command_prepares_and_finds_it_prepared(smollm2_hf: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPE), f"output_dir={tmp_path / 'out'}", "data.rows=200", "data.workers=1"]
    for _ in range(2):
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "kept" in finished.stdout
        assert "tokie" in finished.stdout
    assert (
        len(TokenStore.open(tmp_path / "out" / "train")) + len(TokenStore.open(tmp_path / "out" / "validation")) == 200
    )


def test_preview_writes_a_page_and_nothing_else(smollm2_hf: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPE), f"output_dir={tmp_path / 'out'}", "preview=2"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "detailed thinking" in finished.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out.preview.html"]
