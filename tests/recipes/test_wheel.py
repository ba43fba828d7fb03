"""The built wheel, installed where no checkout is: commands, settings and templates come along."""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from launch import ROOT, environment


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `bin` of a fresh environment that holds the wheel, and for the rest borrows this one's packages."""
    folder, fresh = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("fresh")
    source = folder / "source"  # a copy, because setuptools leaves its files in what it builds from
    shutil.copytree(ROOT / "nemo_reasoning", source / "nemo_reasoning", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("nemo_reasoning-*.whl")
    venv.create(fresh, with_pip=False)
    pip("--python", str(fresh / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel))
    (packages,) = fresh.glob("lib/python*/site-packages")
    # The folders in a .pth file are searched, their own .pth files are not: the checkout stays out of sight.
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
    return fresh / "bin"


def pip(*words: str) -> None:
    """Run pip, which needs no network for what it is asked here."""
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *words], check=True, capture_output=True, text=True)


def run(installed: Path, cwd: Path, *words: str, code: int = 0) -> str:
    """Run a program of the fresh environment from another folder, and return what it printed."""
    clean = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    command = [str(installed / words[0]), *words[1:]]
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_it_is_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    place = run(installed, tmp_path, "python", "-c", "import nemo_reasoning; print(nemo_reasoning.__file__)")
    assert Path(place.strip()).is_relative_to(installed.parent)
    assert (Path(place.strip()).parent / "py.typed").is_file()


def test_the_doctor(installed: Path, tmp_path: Path) -> None:
    said = json.loads(run(installed, tmp_path, "nemo-reasoning", "doctor", "hardware=cpu", "output=json"))
    assert said["ok"], said


def test_a_dry_run(installed: Path, tmp_path: Path) -> None:
    said = run(installed, tmp_path, "nemo-reasoning", "sft", "dry_run=true", "hardware=cpu")
    assert "smollm2_135m" in said
    assert not list(tmp_path.iterdir())


def test_a_preview_of_the_data(installed: Path, tmp_path: Path, tiny_llama: Path) -> None:
    model = (
        "model=hf_local",
        "data=builtin",
        f"model.source={tiny_llama}",
        "model.template=chatml",
        f"cache_dir={tmp_path}",
    )
    said = run(installed, tmp_path, "nemo-reasoning", "prepare", "preview=3", *model)
    assert said.count("detailed thinking") >= 3


def test_a_library_call(installed: Path, tmp_path: Path) -> None:
    script = (
        "from nemo_reasoning.training.memory.tables import estimate_batch_size; print(estimate_batch_size(8, 24, 4096))"
    )
    assert int(run(installed, tmp_path, "python", "-c", script)) >= 1


def test_every_command_helps(installed: Path, tmp_path: Path) -> None:
    listed = run(installed, tmp_path, "nemo-reasoning")
    for command in ("sft", "prepare", "export", "evaluate", "generate", "serve", "doctor"):
        assert f"  {command} " in listed
    assert "there is no such command" in run(installed, tmp_path, "nemo-reasoning", "train", code=1)
