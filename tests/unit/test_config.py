"""Settings: what Hydra composes becomes typed values, or an error that names the key."""

import json
import subprocess
import sys
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_type_hints

import pytest
from composing import composed, sft_settings
from omegaconf import OmegaConf

from nemo_reasoning import errors
from nemo_reasoning.config import RECIPES, load_settings, settings_to_dict
from nemo_reasoning.config.data import FilterSettings
from nemo_reasoning.config.evaluate import EvaluateSettings, EvaluationCallbackSettings
from nemo_reasoning.config.model import PeftScheme, PeftSettings, RopeScaling, Start
from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.config.trainer import Recompute
from nemo_reasoning.errors import ConfigError
from nemo_reasoning.reasoning.sampling import Sampling


@pytest.mark.smoke
def test_the_defaults_load() -> None:
    settings = load_settings(composed("hardware=cpu"), SftSettings)

    assert settings.name == "smollm2_135m_lora"
    assert settings.trainer.recompute is Recompute.none
    assert settings.trainer.micro_batch_size == settings.hardware.micro_batch_size  # an interpolation


@pytest.mark.parametrize(
    ("overrides", "key", "remedy"),
    [
        (["+trainer.seq_lenght=9"], "trainer.seq_lenght", "trainer.seq_length"),
        (["+speed=9"], "speed", ""),
        (["data=jsonl"], "data.paths", "give data.paths="),
        (["model=hf_local"], "model.source", "give model.source="),
        (["~trainer.seed"], "trainer.seed", "give trainer.seed="),
        (["~optim"], "optim", "give optim="),
        (["trainer.seq_length=long"], "trainer.seq_length=long", "a whole number"),
        (["trainer.seq_length=1.5"], "trainer.seq_length=1.5", "a whole number"),
        (["trainer.seq_length=true"], "trainer.seq_length=true", "a whole number"),
        (["trainer.seq_length=null"], "trainer.seq_length=null", "a whole number"),
        (["trainer.max_steps=many"], "trainer.max_steps=many", "null"),
        (["trainer.tf32=7"], "trainer.tf32=7", "true or false"),
        (["trainer.micro_batch_size=0"], "trainer.micro_batch_size=0", "auto"),
        (["trainer.recompute=ful"], "trainer.recompute=ful", "did you mean full?"),
        (["peft.target_modules=linear_qkv"], "peft.target_modules=linear_qkv", "a list"),
        (["trainer.seq_length=${modle.name}"], "trainer.seq_length", "modle.name"),
    ],
)
def test_a_wrong_setting_is_named(overrides: list[str], key: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(composed("hardware=cpu", *overrides), SftSettings)
    assert any(line.startswith(f"- {key}") and remedy in line for line in str(refused.value).splitlines())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.paths", "[https://user:s3cr3tvalue@example.org/rows.jsonl]"),
        ("data.paths", "['https://bucket.example.org/rows.jsonl?X-Amz-Date=1&X-Amz-Signature=s3cr3tvalue']"),
        ("data.paths", "['https://blob.example.org/rows.jsonl?sv=1&sig=s3cr3tvalue%3D']"),
        ("data.paths", "['https://example.org/rows.jsonl?key=AIzas3cr3tvalue-s3cr3tvalue_s3cr3tvaluex']"),
        ("data.paths", "['https://example.org/rows.jsonl?v=2&auth=s3cr3tvalues3cr3tvalue']"),
        ("data.paths", "['https://hf_s3cr3tvalues3cr3tvalues3@huggingface.co/rows.jsonl']"),
        ("model.source", "hf_s3cr3tvalues3cr3tvalues3cr3t"),
        ("model.name", "sk-proj-s3cr3tvalue_s3cr3tvalue"),
        ("cache_dir", "s3://key:s3cr3tvalue@bucket/cache"),
    ],
)
def test_a_secret_is_refused_without_being_shown(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?m)^- {key} holds an? .*; set it in the environment") as refused:
        load_settings(composed("hardware=cpu", "data=jsonl", "model=hf_local", f"{key}={value}"), SftSettings)
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize(
    "path",
    [
        *("hf://datasets/nvidia/a", "s3://bucket/key=1/rows.jsonl", "https://example.org/rows.jsonl?download=true&v=2"),
        *("https://example.org/a?key=train", "https://example.org/a?key=2024/part-00001-of-00128.jsonl&auth=none"),
        *("https://example.org/a?token=&X-Amz-Date=20261126T000000Z", "abfs://a-container-of-rows@account.net/a"),
    ],
)
def test_an_address_without_a_secret_is_taken(path: str) -> None:
    settings = load_settings(composed("hardware=cpu", "data=jsonl", f"data.paths=['{path}']"), SftSettings)
    assert settings.data.paths == [path]


def test_wrong_settings_are_named_together() -> None:
    overrides = ("+speed=9", "trainer.seq_length=long", "~optim", "model.init=randm")
    with pytest.raises(ConfigError) as refused:
        load_settings(composed("hardware=cpu", *overrides), SftSettings)
    lines = str(refused.value).splitlines()
    assert sorted(line.removeprefix("- ").partition(":")[0].partition("=")[0] for line in lines) == [
        *("model.init", "optim", "speed", "trainer.seq_length")
    ]


def test_an_entry_of_a_list_or_of_a_mapping_is_named() -> None:
    config = composed("benchmark=[gsm8k,mmlu]", "benchmark.mmlu.layout=mmul", "reasoning=[on,of]", root="evaluate")
    with pytest.raises(ConfigError, match=r"benchmark\.mmlu\.layout=mmul.*mmlu\?\n- reasoning=of.*off\?"):
        load_settings(config, EvaluateSettings)


def test_settings_survive_the_way_through_json() -> None:
    settings = sft_settings("model=llama31_8b", "hardware=cpu")
    plain = settings_to_dict(settings)

    assert plain["peft"]["scheme"] == "lora"
    assert plain["model"]["architecture"]["rope_scaling"]["factor"] == 8.0
    assert load_settings(OmegaConf.create(json.loads(json.dumps(plain))), SftSettings) == settings


def test_plain_values_only() -> None:
    kinds = {type(value) for value in leaves(settings_to_dict(sft_settings("model=llama31_8b", "hardware=cpu")))}

    assert kinds == {str, int, float, bool, type(None)}


def leaves(value: Any) -> list[Any]:
    """Return the values of nested dictionaries and lists, which must be exactly these types."""
    if type(value) is dict:
        return [leaf for key, inner in value.items() for leaf in (*leaves(key), *leaves(inner))]
    if type(value) is list:
        return [leaf for inner in value for leaf in leaves(inner)]
    return [value]


def nested(cls: type[Any]) -> set[type[Any]]:
    """Return a settings class and every dataclass within its fields."""
    hints = get_type_hints(cls)
    parts = {part for hint in hints.values() for part in (hint, *get_args(hint)) if is_dataclass(part)}
    return {cls}.union(*(nested(part) for part in parts))


@pytest.mark.parametrize("recipe", RECIPES)
def test_classes_hold_no_values(recipe: str) -> None:
    classes = nested(RECIPES[recipe].settings)

    if recipe == "sft":
        assert classes >= {
            EvaluationCallbackSettings,
            RopeScaling,
            FilterSettings,
        }  # below a list, an option, two levels
    for cls in classes - {Sampling}:  # whose values leave the model's probabilities as they are
        assert not [field.name for field in fields(cls) if (field.default, field.default_factory) != (MISSING, MISSING)]


@pytest.mark.parametrize(("rslora", "scale"), [(True, 16.0), (False, 2.0)])
def test_scale_of_the_adapter(rslora: bool, scale: float) -> None:
    peft = PeftSettings(
        PeftScheme.lora,
        dim=64,
        alpha=128,
        dropout=0.0,
        target_modules=[],
        rslora=rslora,
        start_from=None,
        start=Start.adapter,
    )

    assert peft.scale == scale


def test_replicas_are_what_model_parallelism_leaves() -> None:
    trainer = sft_settings("hardware=cpu").trainer
    trainer.devices, trainer.num_nodes, trainer.context_parallel_size = 8, 2, 2
    trainer.tensor_model_parallel_size = trainer.pipeline_model_parallel_size = 2

    assert trainer.data_parallel_size == 2


@pytest.mark.smoke
def test_importing_the_package_loads_nothing_and_does_nothing() -> None:
    script = (
        "import os, sys, logging, warnings; before = set(sys.modules), dict(os.environ), os.getcwd(), sys.path[:], "
        "logging.root.handlers[:], warnings.filters[:]\n"
        "import nemo_reasoning\n"
        "after = os.environ, os.getcwd(), sys.path, logging.root.handlers, warnings.filters\n"
        "assert tuple(after) == before[1:], after\n"
        "print(*sorted(set(sys.modules) - before[0]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["nemo_reasoning"]
    assert done.stderr == ""


def test_settings_and_validation_need_neither_torch_nor_nemo_nor_hydra() -> None:
    script = (
        "import sys, nemo_reasoning.config, nemo_reasoning.hardware, nemo_reasoning.training.dry_run\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'nemo', 'megatron', 'hydra', "
        "'transformers', 'lightning'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []


def test_every_error_has_one_root() -> None:
    tree = {
        name: cls.__bases__[0].__name__
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, BaseException)
    }

    assert tree.pop("NemoReasoningError") == "Exception"
    assert all(name.endswith("Error") and getattr(errors, name).__doc__ for name in tree)
    assert all(issubclass(getattr(errors, name), errors.NemoReasoningError) for name in tree)
    assert {
        "RowError": "DataError",
        "TemplateError": "DataError",
        "VersionError": "BackendError",
        "VerificationError": "ExportError",
    }.items() <= tree.items()
    roots = {name for name, base in tree.items() if base == "NemoReasoningError"}
    assert {"ConfigError", "DataError", "BackendError", "ModelSourceError", "CheckpointError", "ExportError"} <= roots
