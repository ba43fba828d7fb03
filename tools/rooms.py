"""Draw docs/images/rooms.svg, the rooms of the package and what they import: `python tools/rooms.py`.

The rows are the layers of pyproject.toml. An arrow that others already imply is left out: what it joins is joined by
them, so that the picture says of every room what it may reach.
"""

import sys
import tomllib
from collections.abc import Collection
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tools.house import ROOT, arrows, imports

PICTURE = ROOT / "docs" / "images" / "rooms.svg"
WORDS = {
    "cli": "the command",
    "pipeline": "stages of sft",
    "doctor": "machine and plan",
    "evaluation": "benchmarks, reports",
    "serving": "OpenAI's protocol",
    "inference": "engines, budgets",
    "export": "formats, verified",
    "training": "NeMo, callbacks, memory",
    "preparation": "stages of prepare",
    "peft": "NF4, QLoRA",
    "models": "hub, import, sizes",
    "backend": "without CUDA, without TE",
    "data": "schemas, prepare",
    "config": "settings, checks",
    "hardware": "which GPU",
    "reasoning": "switch, tags",
    "answers": "extract, compare",
    "artifacts": "whole files",
    "packages": "what is installed",
    "terminal": "the screen",
    "errors": "with remedies",
}
WIDTH, ROW, BOX, TALL, MARGIN, SIDE = 760, 74, 170, 40, 20, 60


def layers() -> list[list[str]]:
    """Return the rooms of each layer, from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    rows = (layer.split("|") for layer in contracts[0]["layers"])
    return [[room.strip().removeprefix("nemo_reasoning.") for room in row] for row in rows]


def reduced(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the arrows without those that a way over other rooms implies."""
    below = {one: {other for start, other in pairs if start == one} for one, _ in pairs}

    def reach(room: str) -> set[str]:
        return below.get(room, set()).union(*(reach(other) for other in below.get(room, set())))

    return {(one, other) for one, other in pairs if not any(other in reach(way) for way in below[one] - {other})}


def page() -> str:
    """Return the picture."""
    rows = layers()
    places = {}
    for level, row in enumerate(rows):
        for number, room in enumerate(row):
            left = WIDTH / 2 + (number - len(row) / 2) * (BOX + 30) + 15
            places[room] = (left, MARGIN + level * ROW)
    pairs = {pair for pair in arrows(imports(ROOT)) if set(pair) <= set(places)}
    width, height = WIDTH + 2 * SIDE, MARGIN * 2 + len(rows) * ROW - (ROW - TALL)
    parts = [_curve(places[one], places[other], places.values()) for one, other in sorted(reduced(pairs))]
    parts += [_box(room, *place) for room, place in places.items()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-SIDE} 0 {width} {height}" font-family="sans-serif">\n'
        f'<rect x="{-SIDE}" width="{width}" height="{height}" fill="#fbfbfa"/>\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#5b6570"/></marker></defs>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _box(room: str, left: float, top: float) -> str:
    middle = left + BOX / 2
    return (
        f'<rect x="{left:g}" y="{top:g}" width="{BOX}" height="{TALL}" rx="6" fill="#fff" stroke="#2563a8"/>'
        f'<text x="{middle:g}" y="{top + 17:g}" text-anchor="middle" font-size="14" font-weight="600">{room}</text>'
        f'<text x="{middle:g}" y="{top + 32:g}" text-anchor="middle" font-size="11" fill="#5b6570">'
        f"{escape(WORDS.get(room, ''))}</text>"
    )


def _curve(one: tuple[float, float], other: tuple[float, float], boxes: Collection[tuple[float, float]]) -> str:
    """Return an arrow: straight to the next row, or round the boxes of the rows between."""
    levels = round((other[1] - one[1]) / ROW)
    if levels <= 1:
        start, end = (one[0] + BOX / 2, one[1] + TALL), (other[0] + BOX / 2, other[1])
        bends = (start[0], start[1] + ROW * 0.3), (end[0], end[1] - ROW * 0.3)
    else:
        aside = one[0] + other[0] + BOX - WIDTH
        right = aside > 0 or (aside == 0 and levels % 2 == 1)
        start, end = ((left + BOX * right, top + TALL / 2) for left, top in (one, other))
        if any(top == one[1] and (left > one[0]) == right for left, top in boxes if left != one[0]):
            start = (one[0] + BOX / 2, one[1] + TALL)  # another box is in the way
        room = 4 + 6 * levels
        passed = [one, other, *(box for box in boxes if one[1] < box[1] < other[1])]
        edges = [left + BOX * right for left, _ in passed]
        outermost = max(edges) + room if right else min(edges) - room
        nearest = max(start[0], end[0]) if right else min(start[0], end[0])
        away = nearest + (outermost - nearest) / 0.75  # a curve goes three quarters of the way to its bends
        bends = (away, start[1] + 10), (away, end[1] - TALL / 2)
    points = " ".join(f"{x:g} {y:g}" for x, y in (*bends, end))
    return f'<path d="M{start[0]:g} {start[1]:g}C{points}" fill="none" stroke="#5b6570" marker-end="url(#tip)"/>'


if __name__ == "__main__":
    PICTURE.write_text(page(), encoding="utf-8")
