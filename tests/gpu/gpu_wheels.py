"""Fetch the wheels that a machine with torch and without a package registry lacks for `make gpu-check`.

    python tests/gpu/gpu_wheels.py --present names.txt --python 3.12 --out .wheels

`names.txt` lists what the machine has, one name a line, as `pip list --format=freeze` or plain. Prints the size of what
is to be carried there.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements" / "gpu-check.txt"
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 24, 17)]
_PLATFORMS += ["manylinux2014_x86_64", "manylinux1_x86_64", "linux_x86_64"]


def main() -> None:
    """Fetch what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--present", type=Path, help="names of what the machine has; nothing but torch without it")
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--out", type=Path, default=Path(".wheels"))
    arguments = parser.parse_args()
    present = names(arguments.present.read_text(encoding="utf-8")) if arguments.present else {}
    wanted = [line for name, line in names(REQUIREMENTS.read_text(encoding="utf-8")).items() if name not in present]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for requirement in wanted:
        fetch(requirement, python=arguments.python, out=arguments.out)
    size = sum(wheel.stat().st_size for wheel in arguments.out.glob("*.whl"))
    print(f"{len(wanted)} packages, {size / 2**20:.0f} MiB in {arguments.out}")


def names(text: str) -> dict[str, str]:
    """Return the lines of a list of packages by their names, as registries write them."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", re.split(r"[=<>~!@ \[]", line)[0]).lower(): line for line in lines}


def fetch(requirement: str, *, python: str, out: Path) -> None:
    """Put a wheel into a folder; where the registry has none it is built here, which suits pure Python alone."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    target = [argument for platform in _PLATFORMS for argument in ("--platform", platform)]
    asked = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp", *target]
    command = [*pip, "download", *asked, "--dest", str(out), requirement]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    if done.returncode:
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(out), requirement], check=True)


if __name__ == "__main__":
    main()
