"""Every command of the README runs; those that would train or need a container are run as far as they go without."""

import re
import shlex
import subprocess
import sys

import pytest
from launch import ROOT, environment

_BLOCKS = re.compile(r"```sh\n(.*?)```", re.DOTALL)
COMMANDS = [
    line.split("  #")[0].strip()
    for block in _BLOCKS.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    for line in block.splitlines()
]
RECIPES = [command for command in COMMANDS if command.startswith("python recipes/")]
OTHERS = [command for command in COMMANDS if command not in RECIPES]


def _harmless(command: str) -> list[str]:
    """Return a recipe's command line with the work taken out: the plan, or the composed settings."""
    words = [sys.executable, *shlex.split(command)[1:]]
    if "--help" in words:
        return words
    return [*words, "dry_run=true"] if "sft_lora" in command else [*words, "--cfg", "job"]


@pytest.mark.parametrize("command", RECIPES)
def test_a_recipe(command: str) -> None:
    done = subprocess.run(_harmless(command), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_recipe_is_shown() -> None:
    shown = {shlex.split(command)[1] for command in RECIPES}
    assert shown == {f"recipes/{path.name}" for path in (ROOT / "recipes").glob("*.py")}


@pytest.mark.parametrize("command", OTHERS)
def test_another_command(command: str) -> None:
    program, *words = shlex.split(command)
    if program == "make":
        done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    else:
        assert (program, words[0]) in {("docker", "run"), ("pip", "install")}
