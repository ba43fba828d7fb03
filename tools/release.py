"""Release: `python tools/release.py 0.2.0`. Bumps, tags, builds, and tries the wheel in a clean environment.

Nothing is pushed or published; the last lines say how. Run it on a clean main; it undoes nothing.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def run(*command: str, cwd: Path = ROOT) -> str:
    """Run a command and return what it printed; its failure ends the release."""
    print("$", " ".join(command))
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\nrelease stopped: {command[0]} failed")
    return done.stdout


def replace(file: str, pattern: str, text: str) -> None:
    """Replace one place of a file."""
    path = ROOT / file
    changed, count = re.subn(pattern, text, path.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    if count != 1:
        sys.exit(f"{file} has no {pattern}")
    path.write_text(changed, encoding="utf-8")


def bump(version: str) -> None:
    """Write the version and today's date where they stand."""
    today = datetime.now(UTC).date().isoformat()
    replace("nemo_reasoning/__init__.py", r'^__version__ = ".*"$', f'__version__ = "{version}"')
    replace("CITATION.cff", r"^version: .*$", f"version: {version}")
    replace("CHANGELOG.md", rf"^## {re.escape(version)}.*$", f"## Unreleased\n\n## {version} - {today}")


def build(out: Path) -> Path:
    """Build the wheel from what is committed, and return it."""
    source = out / "source"
    source.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(source))
    return next(out.glob("nemo_reasoning-*.whl"))


def try_out(wheel: Path, folder: Path) -> None:
    """Install the wheel in a clean environment, with nothing but its own dependencies, and use it elsewhere."""
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / "bin"
    run(str(programs / "pip"), "install", "--quiet", "--constraint", "requirements/constraints-cpu.txt", str(wheel))
    command = str(programs / "nemo-reasoning")
    print(run(command, "--version"))
    run(command, "sft", "experiment=8b_24gb", "dry_run=true", cwd=folder)
    report = subprocess.run(
        [command, "doctor", "output=json"], cwd=folder, stdout=subprocess.PIPE, text=True, check=False
    )
    if '"checks"' not in report.stdout:  # without NeMo it has to say that training would fail, and does
        sys.exit(f"release stopped: the doctor said {report.stdout!r}")


def main() -> None:
    """Release a version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="such as 0.2.0; CHANGELOG.md must have its heading")
    parser.add_argument("--trial", action="store_true", help="build and try the wheel of HEAD; change and tag nothing")
    options = parser.parse_args()
    if not _VERSION.fullmatch(options.version):
        sys.exit(f"{options.version} is no version such as 0.2.0")
    if not options.trial:
        if run("git", "status", "--porcelain"):
            sys.exit("commit first: a release is what main holds")
        bump(options.version)
        run("git", "commit", "--quiet", "--all", "--message", f"Release {options.version}")
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        try_out(wheel, Path(folder))
        if not options.trial:
            (ROOT / "outputs" / "dist").mkdir(parents=True, exist_ok=True)
            wheel.rename(ROOT / "outputs" / "dist" / wheel.name)
    if not options.trial:
        run("git", "tag", "--annotate", f"v{options.version}", "--message", f"nemo-reasoning {options.version}")
        print(f"now: git push --follow-tags; twine upload outputs/dist/nemo_reasoning-{options.version}-*.whl")


if __name__ == "__main__":
    main()
