"""A process of its own, whose real descriptors are redirected."""

import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from nemo_reasoning.terminal import plain_console

CHATTER = ("a print", "from a shell", "straight to 2", "a warning", "an info", "from NeMo", "no handler")
SCRIPT = """
import logging, os, sys, warnings
from pathlib import Path
from nemo_reasoning.terminal import quiet_output

early = logging.getLogger("early")
early.addHandler(logging.StreamHandler(sys.stderr))
early.setLevel(logging.INFO)
with quiet_output(Path(sys.argv[1])) as terminal:
    terminal.write("for the user\\n")
    print("a print")
    os.system("echo from a shell")
    os.write(2, b"straight to 2\\n")
    warnings.warn("a warning")
    early.info("an info")
    logging.getLogger("late").warning("no handler")
    nemo = logging.getLogger("nemo_logger")
    nemo.propagate = False
    nemo.addHandler(logging.StreamHandler(sys.stdout))
    for handler in nemo.handlers:
        handler.setLevel(logging.INFO)
    nemo.warning("from NeMo")
    nemo.error("an error of NeMo")
    early.error("another error")
    logging.getLogger("lightning.pytorch").error("a third, which the root logger sees too")
    if len(sys.argv) > 2:
        raise ValueError("what went wrong")
print("afterwards")
nemo.handlers[-1].flush()
nemo.error("a late record")
"""


def run(log: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(log), *arguments], capture_output=True, text=True, check=False
    )


def test_the_terminal_shows_what_is_for_the_user_and_errors_once(tmp_path: Path) -> None:
    done = run(tmp_path / "deep" / "log.txt")

    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "for the user",
        "ERROR nemo_logger: an error of NeMo",
        "ERROR early: another error",
        "ERROR lightning.pytorch: a third, which the root logger sees too",
        "afterwards",
        "a late record",
    ]
    assert done.stderr == ""


@pytest.mark.parametrize("line", [*CHATTER, "an error of NeMo", "another error"])
def test_the_log_has_everything_else(tmp_path: Path, line: str) -> None:
    log = tmp_path / "log.txt"
    run(log)

    assert line in log.read_text()
    assert "for the user" not in log.read_text()


def test_a_second_run_appends(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    run(log)
    once = log.read_text()
    run(log)

    assert log.read_text().count("a print") == 2 * once.count("a print") == 2


def test_an_exception_reaches_the_terminal_with_the_place_of_the_log(tmp_path: Path) -> None:
    done = run(tmp_path / "log.txt", "fail")

    assert done.returncode == 1
    assert str(tmp_path / "log.txt") in done.stdout
    assert "ValueError: what went wrong" in done.stderr


def test_brackets_and_colons_are_shown() -> None:
    told = "run: outputs/[x]/:100:/[/b]; export formats=[merged]"
    stream = StringIO()
    plain_console(file=stream, soft_wrap=True).print(told)
    assert stream.getvalue() == f"{told}\n"


def test_no_command_reads_markup_in_what_it_tells() -> None:
    package = Path(plain_console.__code__.co_filename).parent
    made = {path.name for path in package.rglob("*.py") if re.search(r"\bConsole\(", path.read_text("utf-8"))}
    assert made <= {"terminal.py", "generate.py"}  # the latter says for each line whether it is markup


def test_a_command_ends_without_a_last_look_for_garbage() -> None:
    script = (
        "import atexit, gc; atexit.register(lambda: print('frozen', gc.get_freeze_count()));"
        "from nemo_reasoning.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "prepare", "seed=x"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert int(done.stdout.split()[-1]) > 10_000
