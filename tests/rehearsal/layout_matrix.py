"""Train tiny models in every layout of processes, and write how far they are from one process into docs/scale.md.

    .venv/bin/python tests/rehearsal/layout_matrix.py                              # everything, half an hour
    .venv/bin/python tests/rehearsal/layout_matrix.py --family llama --scheme lora dora --rows packed

Every cell trains three steps in float32 without dropout through the recipe, and validates after each; it holds the
largest difference of a loss, a gradient's norm or a validation loss, of numbers above 1 as a share. Rows that are not
tried stay as they are.
"""

import argparse
import datetime
import itertools
import re
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "recipes")]
from layouts import LAYOUTS, Measured, Refused, largest_difference, train_in  # noqa: E402
from tiny import FAMILIES, save_tiny  # noqa: E402

PAGE = REPOSITORY / "docs" / "scale.md"
SCHEMES = ("lora", "qlora", "dora", "none")
ROWS = {"packed": "trainer.packing=true", "padded": "trainer.packing=false"}
_TABLE = re.compile(r"(<!-- tried -->\n)(.*?)(?=\n<!-- /tried -->)", re.DOTALL)


def row(family: str, scheme: str, rows: str) -> str:
    """Return a line of the table."""
    cells = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save_tiny(folder / "model", family)
        alone: Measured = {}
        for number, layout in enumerate(LAYOUTS):
            try:
                measured = train_in(LAYOUTS[layout], model, folder / f"{number}", ROWS[rows], scheme=scheme)
                alone = alone or measured
                cells.append(f"{largest_difference(alone, measured):.0e}")
            except Refused as refused:
                cells.append(f"refused: {str(refused).partition(': ')[2].partition(';')[0] or refused}")
            print(family, scheme, rows, layout, cells[-1], flush=True)
    cells = cells[1:]  # the first is one process itself
    return f"| {family} | {scheme} | {rows} | {' | '.join(cells)} | {datetime.date.today().isoformat()} |"


def write(line: str) -> None:
    """Put a line into the page's table, in place of an older one of the same training."""
    page = PAGE.read_text(encoding="utf-8")
    before = _TABLE.search(page)
    assert before is not None, f"{PAGE} has no table to write into"
    kept = {_training(one): one for one in [*before[2].splitlines()[2:], line]}
    titles = ["family", "peft", "rows", *list(LAYOUTS)[1:], "tried"]
    head = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    table = "\n".join([*head, *(kept[training] for training in sorted(kept))])
    PAGE.write_text(page[: before.start(2)] + table + page[before.end(2) :], encoding="utf-8")


def _training(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.split("|")[1:4])


def main() -> None:
    """Try the layouts and write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--family", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--scheme", nargs="+", default=SCHEMES, choices=SCHEMES)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    chosen = parser.parse_args()
    for training in itertools.product(chosen.family, chosen.scheme, chosen.rows):
        write(row(*training))


if __name__ == "__main__":
    main()
