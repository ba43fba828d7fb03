"""NeMo and Megatron-Core are judged by what their sources hold; what is missing is named."""

import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from nemo_reasoning.artifacts import installed_version
from nemo_reasoning.backend.versions import REMEDY, SUPPORTED, find_problems, found_version, require_supported_versions
from nemo_reasoning.errors import VersionError


def real_source(path: str) -> str:
    """Return a source file of the installed Megatron-Core."""
    spec = importlib.util.find_spec("megatron")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return (Path(spec.submodule_search_locations[0]).parent / path).read_text()


@pytest.fixture
def core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the files of Megatron-Core that are examined, which is found before the installed one."""
    for path in (
        *("__init__.py", "package_info.py", "parallel_state.py", "process_groups_config.py", "optimizer/__init__.py"),
        *("dist_checkpointing/__init__.py", "dist_checkpointing/serialization.py", "inference/__init__.py"),
        *("inference/model_inference_wrappers/__init__.py",),
        *("inference/model_inference_wrappers/inference_wrapper_config.py",),
    ):
        copy = tmp_path / "megatron" / "core" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(real_source(f"megatron/core/{path}"))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "megatron" / "core"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_development_version_with_the_old_signature_is_supported(core: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", {"nemo_toolkit": "2.6.0", "megatron-core": "0.16.0rc0"}.__getitem__)

    require_supported_versions()


def test_the_signature_of_0_16_is_supported(core: Path) -> None:
    edit(core / "optimizer/__init__.py", "no_weight_decay_cond", "config_overrides")
    edit(core / "optimizer/__init__.py", "scale_lr_cond", "dump_param_to_param_group_map")

    assert find_problems() == {}


REMOVALS = [
    ("optimizer/__init__.py", "use_gloo_process_groups", "gloo", "get_megatron_optimizer(config, model_chunks, use_"),
    ("optimizer/__init__.py", "def get_megatron_optimizer(", "def build(", "get_megatron_optimizer"),
    ("parallel_state.py", "get_data_modulo_expert_parallel_group", "renamed", "get_data_modulo_expert_parallel_group"),
    ("process_groups_config.py", "class ProcessGroupCollection", "class Other", "ProcessGroupCollection"),
    ("dist_checkpointing/serialization.py", "version: int = 1", "number: int = 1", "(backend, version)"),
]


@pytest.mark.parametrize(("file", "old", "new", "missing"), REMOVALS)
def test_what_is_missing_is_named(core: Path, file: str, old: str, new: str, missing: str) -> None:
    edit(core / file, old, new)

    problem = find_problems()["megatron-core"]
    assert missing in problem
    assert metadata.version("megatron-core") in problem
    with pytest.raises(VersionError, match=r"docs/version-matrix\.md"):
        require_supported_versions()


def test_everything_missing_is_said_at_once(core: Path) -> None:
    for file, old, new, _ in REMOVALS[1:]:
        edit(core / file, old, new)
    (core / "inference/model_inference_wrappers/inference_wrapper_config.py").unlink()

    problem = find_problems()["megatron-core"]
    assert all(missing in problem for *_, missing in REMOVALS[1:])
    assert "inference_wrapper_config" in problem


def test_a_function_that_another_module_defines_is_found(core: Path) -> None:
    (core / "optimizer/made.py").write_text((core / "optimizer/__init__.py").read_text())
    (core / "optimizer/__init__.py").write_text("from megatron.core.optimizer.made import get_megatron_optimizer\n")

    assert find_problems() == {}


def test_a_nemo_without_its_llm_collection_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nemo/collections/asr").mkdir(parents=True)
    for package in ("nemo", "nemo/collections", "nemo/collections/asr"):
        (tmp_path / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    assert "nemo.collections.llm" in find_problems()["nemo_toolkit"]
    assert "megatron-core" not in find_problems()


def test_an_absent_package_is_named_with_the_versions_that_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [])

    problems = find_problems()

    assert set(problems) == set(SUPPORTED)
    assert all("not installed" in problem and SUPPORTED[name] in problem for name, problem in problems.items())
    with pytest.raises(VersionError, match="make setup") as caught:
        require_supported_versions()
    assert REMEDY in str(caught.value)


def test_without_metadata_a_package_tells_its_version() -> None:
    code = (
        "from importlib import metadata\n"
        "known = metadata.version('megatron-core'), metadata.version('nemo_toolkit')\n"
        "def version(name): raise metadata.PackageNotFoundError(name)\n"
        "metadata.version = version\n"
        "from nemo_reasoning.backend.versions import found_version\n"
        "assert (found_version('megatron-core'), found_version('nemo_toolkit')) == known"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_versions_are_those_of_the_metadata() -> None:
    assert found_version("megatron-core") == metadata.version("megatron-core")
    assert installed_version("no-such-distribution") is None
