"""Measure functions and files against the house style: `python tools/check_sizes.py`."""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("nemo_reasoning", "recipes", "tools", "tests", "benchmarks")
FILE_LINES, RECIPE_LINES = 300, 80
MEDIAN, PERCENTILE_95, LONGEST = 15, 50, 80


def function_lengths(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (place, lines without docstring) of every function in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                lines -= (first.end_lineno or first.lineno) - first.lineno + 1
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", lines


def problems(files: list[Path]) -> list[str]:
    """Return what breaks a limit, a line each."""
    found = []
    for path in files:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        limit = RECIPE_LINES if path.parent.name == "recipes" and path.parent.parent == ROOT else FILE_LINES
        if lines > limit:
            found.append(f"{path.relative_to(ROOT)}: {lines} lines, at most {limit}")
    tests = Counter(path.name for path in files if path.name.startswith("test_"))
    found += [
        f"{name}: {count} test files have this name, and pytest takes one" for name, count in tests.items() if count > 1
    ]
    functions = [function for path in files for function in function_lengths(path)]
    lengths = [length for _, length in functions]
    found += [f"{place}: {length} lines, at most {LONGEST}" for place, length in functions if length > LONGEST]
    middle, late = median(lengths), quantiles(lengths, n=20)[-1]
    print(f"{len(files)} files, {len(functions)} functions: median {middle:g}, 95th percentile {late:g} lines")
    if middle > MEDIAN:
        found.append(f"median function: {middle:g} lines, at most {MEDIAN}")
    if late > PERCENTILE_95:
        found.append(f"95th percentile of functions: {late:g} lines, at most {PERCENTILE_95}")
    return found


def main() -> None:
    """Print the sizes, and exit with 1 if one is over its limit."""
    files = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    found = problems(files)
    print("\n".join(found))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
