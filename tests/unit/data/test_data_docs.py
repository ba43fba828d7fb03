"""The tables of docs/data.md are what the declared objects say; run with WRITE_DOCS=1 to write them anew."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nemo_reasoning.config import CONF_DIR
from nemo_reasoning.data.schemas.columns import QUESTION_PARTS, REFUSED, TRACES
from nemo_reasoning.data.schemas.layouts import LAYOUTS, ORDER, table
from nemo_reasoning.data.schemas.verdicts import VERDICTS
from nemo_reasoning.reasoning.trace import MARKERS

DOCS = Path(__file__).resolve().parents[3] / "docs" / "data.md"


def layouts() -> str:
    lines = ["| layout | read | refused by name |", "|---|---|---|"]
    common = set.intersection(*({name for name in REFUSED if name not in layout.reads} for layout in LAYOUTS))
    for name, read, refused in table():
        own = sorted(set(refused.split(", ")) - common)
        lines.append(f"| {name} | {read} | {', '.join(own + ['those below'])} |")
    return "\n".join(lines)


def presets() -> str:
    lines = ["| preset | files | read as |", "|---|---|---|"]
    for path in sorted((CONF_DIR / "data").glob("*.yaml")):
        if path.stem.startswith("_") or path.stem in ("builtin", "jsonl", "local"):
            continue
        title = path.read_text(encoding="utf-8").split("\n")[0].removeprefix("# ").rstrip(".")
        columns = OmegaConf.load(path).get("columns")
        read = "the columns " + ", ".join(map(str, columns.values())) if columns else "the layout that fits"
        lines.append(f"| `data={path.stem}` | {title} | {read} |")
    return "\n".join(lines)


def refused() -> str:
    return "\n".join(f"- `{name}`: {why}" for name, why in sorted(REFUSED.items()))


def order() -> str:
    return "\n".join(f"- {first} before {second}: {why}" for (first, second), why in ORDER.items())


def markers() -> str:
    return "\n".join(f"- `{marker.example}`" for marker in MARKERS)


def named(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


TABLES = {
    "layouts": layouts,
    "presets": presets,
    "refused": refused,
    "order": order,
    "markers": markers,
    "traces": lambda: named(TRACES),
    "verdicts": lambda: named(VERDICTS),
    "parts": lambda: named(QUESTION_PARTS),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_docs_is_what_the_code_declares(name: str) -> None:
    text = DOCS.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    wanted = f"{begin}{TABLES[name]()}{end}"
    if os.environ.get("WRITE_DOCS"):
        DOCS.write_text(re.sub(f"{begin}.*?{end.lstrip()}", lambda _: wanted, text, flags=re.DOTALL), encoding="utf-8")
    assert wanted in DOCS.read_text(encoding="utf-8")
