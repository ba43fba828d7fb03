"""Every YAML under conf/ composes, loads and can train; the numbers are those of their sources."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from composing import asked_settings, composed, sft_settings
from omegaconf import DictConfig, OmegaConf

from nemo_reasoning.config import CONF_DIR, RECIPES, load_settings, read_group, settings_to_dict
from nemo_reasoning.config.model import LORA_TARGETS
from nemo_reasoning.config.train import SftSettings, validate
from nemo_reasoning.config.trainer import Recompute
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.training.memory.planner import fit_to_memory

SCHEMAS = {recipe.root: recipe.settings for recipe in RECIPES.values()}
FILES = sorted(path.relative_to(CONF_DIR) for path in CONF_DIR.rglob("*.yaml"))
ATTENTION, ALL = list(LORA_TARGETS[:2]), list(LORA_TARGETS)


@cache
def groups(root: str) -> dict[str, str]:
    """Return the groups a root YAML chooses from, each with the key that chooses."""
    choices = composed(root=root, hydra=True).hydra.runtime.choices
    defaults = OmegaConf.load(CONF_DIR / f"{root}.yaml").get("defaults", [])
    several = {key: key for item in defaults if OmegaConf.is_dict(item) for key in item if OmegaConf.is_list(item[key])}
    return {str(key).partition("@")[0]: str(key) for key in choices} | several


BASES = [file for file in FILES if file.stem.startswith("_")]  # chosen by nobody, built on by others


def placements(file: Path) -> list[tuple[str, list[str]]]:
    """Return every root YAML that can hold a file, with the override that puts it there."""
    if file.parent == Path("."):
        return [(file.stem, [])]
    group = file.parent.as_posix()
    with_others = {"paged_adamw_8bit": ["hardware=gpu_80gb"], "dpo": ["data=jsonl", "data.paths=[pairs.jsonl]"]}
    needed = with_others.get(file.stem, [])
    return [(root, [f"{groups(root)[group]}={file.stem}", *needed]) for root in roots() if group in groups(root)]


def roots() -> list[str]:
    """Return the root YAMLs, but for those that build on another one: they hold the same groups."""
    stems = [path.stem for path in FILES if path.parent == Path(".")]
    return [
        root for root in stems if not set(stems) & set(map(str, OmegaConf.load(CONF_DIR / f"{root}.yaml").defaults))
    ]


def check(config: DictConfig, cls: type[Any]) -> None:
    """Load a composed configuration, unless values are left to the user: those it has to name."""
    missing = OmegaConf.missing_keys(config)
    if missing:
        with pytest.raises(ConfigError, match="|".join(missing)):
            load_settings(config, cls)
    else:
        settings = load_settings(config, cls)
        if isinstance(settings, SftSettings):
            validate(fit_to_memory(settings))


@pytest.mark.parametrize("file", [file for file in FILES if file not in BASES], ids=str)
def test_every_file_composes_and_loads(file: Path) -> None:
    placed = placements(file)

    assert placed, f"no YAML at the root of conf/ chooses from {file.parent}/"
    for root, overrides in placed:
        check(composed(*overrides, root=root), SCHEMAS[root])


def test_every_root_yaml_has_a_class() -> None:
    assert {path.stem for path in FILES if path.parent == Path(".")} == set(SCHEMAS)


def test_what_is_left_to_the_user_is_enough() -> None:
    filled = ["model.source=/llama", "model.template=llama3", "data.paths=[rows.jsonl]"]

    validate(load_settings(composed("model=hf_local", "data=jsonl", *filled), SftSettings))


def test_a_file_is_named_after_what_it_holds() -> None:
    for file in FILES:
        if file.parent.name in ("model", "hardware") and file not in BASES and file.stem != "auto":
            assert read_group(file.parent.name, file.stem).name == file.stem


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("model", "dim", "dropout", "targets"),
    [
        ("llama3_8b", 64, 0.05, ALL),
        ("llama31_8b", 64, 0.05, ALL),
        ("llama31_nemotron_nano_8b", 64, 0.05, ALL),
        ("llama2_13b", 32, 0.05, ALL),
        ("llama3_70b", 16, 0.1, ATTENTION),
        ("llama31_70b", 16, 0.1, ATTENTION),
    ],
)
def test_the_guides_values_are_the_defaults(model: str, dim: int, dropout: float, targets: list[str]) -> None:
    plain = settings_to_dict(asked_settings(f"model={model}", "hardware=gpu_80gb"))

    assert plain["peft"] == {
        "scheme": "lora",
        "dim": dim,
        "alpha": 2 * dim,
        "dropout": dropout,
        "target_modules": targets,
        "rslora": True,
        "start_from": None,
        "start": "adapter",
    }
    assert plain["optim"].items() >= {"lr": 2e-4, "min_lr_ratio": 0.0, "warmup_ratio": 0.03, "clip_grad": 1.0}.items()
    trainer = {
        "epochs": 2.0,
        "max_steps": None,
        "global_batch_size": 2 * 8,
        "eval_interval": 500,
        "precision": "bf16-mixed",
    }
    assert plain["trainer"].items() >= trainer.items()
    assert plain["data"].items() >= {"validation_share": 0.05, "thinking_off_share": 0.3}.items()


def test_an_8b_model_gets_the_guides_micro_batch_on_80_gb() -> None:
    trainer = sft_settings("model=llama3_8b", "hardware=gpu_80gb").trainer

    assert (trainer.micro_batch_size, trainer.recompute) == (2, Recompute.none)


def test_nvidias_weekend_run() -> None:
    plain = settings_to_dict(sft_settings("experiment=nvidia_weekend"))

    assert plain["model"]["source"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert plain["hardware"]["name"] == "gpu_80gb"
    assert plain["peft"].items() >= {"dim": 64, "alpha": 128, "target_modules": ALL, "rslora": False}.items()
    trainer = {
        "seq_length": 8192,
        "micro_batch_size": 1,
        "global_batch_size": 256,
        "max_steps": 2000,
        "precision": "bf16-mixed",
    }
    assert plain["trainer"].items() >= trainer.items()
    assert plain["optim"]["lr"] == 1e-4
    assert plain["optim"]["lr"] * plain["optim"]["min_lr_ratio"] == pytest.approx(1e-5)
    assert plain["optim"]["warmup_ratio"] == 0.05


@pytest.mark.parametrize(
    ("name", "model", "scheme", "devices"),
    [
        ("8b_24gb", "llama31_8b", "qlora", 1),
        ("8b_80gb", "llama31_8b", "lora", 1),
        ("70b_8x80gb", "llama31_70b", "lora", 8),
    ],
)
def test_a_whole_run_to_copy_fits_its_hardware(name: str, model: str, scheme: str, devices: int) -> None:
    settings = sft_settings(f"experiment={name}")  # which refuses what the GPU cannot hold

    assert (settings.name, settings.model.name, settings.peft.scheme.value) == (name, model, scheme)
    assert settings.trainer.devices == settings.trainer.tensor_model_parallel_size == devices
    assert sum(rows or 0 for rows in settings.data.subsets.values()) >= 50_000


def test_an_experiment_yields_to_the_command_line() -> None:
    settings = sft_settings("experiment=nvidia_weekend", "trainer.max_steps=7", "model=llama3_8b")

    assert (settings.trainer.max_steps, settings.model.name, settings.name) == (7, "llama3_8b", "nvidia_weekend")


def test_the_demonstration_needs_neither_hub_nor_gpu() -> None:
    settings = sft_settings("experiment=demo", "hardware=cpu")

    assert settings.model.source.startswith("pypi:")
    assert settings.evaluate > 0
