"""Measure the package as a house: files, lines, arrows between rooms, circles. `python tools/house.py [CHECKOUT]`.

A room is a folder or file directly below `nemo_reasoning`; an arrow is a pair of rooms of which one imports the other,
wherever in the file the import stands; what only type checkers read does not count.
"""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "nemo_reasoning"


def modules(checkout: Path) -> dict[str, Path]:
    """Return the files of the package by dotted name."""
    files = sorted((checkout / PACKAGE).rglob("*.py"))
    names = (".".join(file.relative_to(checkout).with_suffix("").parts).removesuffix(".__init__") for file in files)
    return dict(zip(names, files, strict=True))


def imports(checkout: Path) -> dict[str, set[str]]:
    """Return which modules of the package each one imports, but for the lazy names of the package itself."""
    found = modules(checkout)
    return {name: set(_imported(file, found)) - {name, PACKAGE} for name, file in found.items() if name != PACKAGE}


def _imported(file: Path, known: dict[str, Path]) -> Iterator[str]:
    for node in _walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in known or node.module in known:
                    yield whole if whole in known else node.module


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is below a node, but for what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from _walk(child)


def room(module: str) -> str:
    """Return the room of a module."""
    return module.split(".")[1]


def arrows(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Return (room, room that it imports)."""
    return {
        (room(name), room(other)) for name, others in graph.items() for other in others if room(name) != room(other)
    }


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the modules that import each other, directly or not, in groups."""
    reachable = {name: _reach(name, graph) for name in graph}
    groups = {tuple(sorted(o for o in reach if name in reachable.get(o, ()))) for name, reach in reachable.items()}
    return [list(group) for group in sorted(groups) if len(group) > 1]


def _reach(start: str, graph: dict[str, set[str]]) -> set[str]:
    found, waiting = set[str](), [start]
    while waiting:
        fresh = graph.get(waiting.pop(), set()) - found
        found |= fresh
        waiting += fresh
    return found


def measure(checkout: Path) -> dict[str, int]:
    """Return the figures of a checkout."""
    graph, files = imports(checkout), modules(checkout)
    conf = next(path for path in (checkout / PACKAGE / "conf", checkout / "conf") if path.is_dir())
    yaml = list(conf.rglob("*.yaml"))
    importers = {name: [other for other, others in graph.items() if name in others] for name in graph}
    return {
        "files": len(files),
        "lines": sum(_lines(file) for file in files.values()),
        "files under 60 lines": sum(_lines(file) < 60 for file in files.values()),
        "YAML files": len(yaml),
        "YAML lines": sum(map(_lines, yaml)),
        "arrows between rooms": len(arrows(graph)),
        "circles": len(circles(graph)),
        "files with one importer": sum(len(found) == 1 for found in importers.values()),
        "files that training pulls in": len({PACKAGE, *_reach(f"{PACKAGE}.pipeline", graph)}),
    }


def _lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def main() -> None:
    """Print the figures of a checkout, and exit with 1 if modules import each other in a circle."""
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    print(json.dumps(measure(checkout), indent=2))
    found = circles(imports(checkout))
    for group in found:
        print(f"these import each other in a circle: {', '.join(group)}", file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
