"""Every command of README, quickstart and tutorial runs, as far as it goes without training or a container."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from launch import ROOT, environment

PAGES = ("README.md", "docs/quickstart.md", "docs/tutorial.md")
_BLOCKS = re.compile(r"```(sh|python)\n(.*?)```", re.DOTALL)
BLOCKS = {page: _BLOCKS.findall((ROOT / page).read_text(encoding="utf-8")) for page in PAGES}
COMMANDS = sorted(
    {
        line.split("  #")[0].strip()
        for blocks in BLOCKS.values()
        for language, block in blocks
        for line in block.replace("\\\n", " ").splitlines()
        if language == "sh"
    }
)
OURS = [command for command in COMMANDS if command.startswith(("python recipes/", "nemo-reasoning "))]
OTHERS = [command for command in COMMANDS if command not in OURS]


def _harmless(command: str) -> list[str]:
    """Return a command line with the work taken out: the plan, or the composed settings."""
    program, *words = shlex.split(command)
    start = ["-c", "from nemo_reasoning.cli import main; main()"] if program == "nemo-reasoning" else []
    training = words[0] in ("recipes/sft_lora.py", "sft")
    return [sys.executable, *start, *words, *(["dry_run=true"] if training else ["--cfg", "job"])]


@pytest.mark.parametrize("command", OURS)
def test_a_command_of_ours(command: str, tmp_path: Path) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "rows.jsonl").write_text("")  # the reader's own
    done = subprocess.run(
        _harmless(command), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_recipe_is_shown() -> None:
    shown = {shlex.split(command)[1] for command in OURS if command.startswith("python")}
    assert shown == {f"recipes/{path.name}" for path in (ROOT / "recipes").glob("*.py")}


@pytest.mark.parametrize("command", OTHERS)
def test_another_command(command: str) -> None:
    program, *words = shlex.split(command)
    if program == "make":
        done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    else:
        assert (program, words[0]) in {("docker", "run"), ("pip", "install")}


def test_the_python_of_the_readme() -> None:
    (code,) = (block for language, block in BLOCKS["README.md"] if language == "python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    micro_batch_size, recompute = done.stdout.split()
    assert int(micro_batch_size) >= 1
    assert recompute in ("none", "full")
