"""Examine this machine and answer on the terminal."""

import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nemo_reasoning.config.doctor import DoctorSettings, Output
from nemo_reasoning.doctor.checks import Check, Verdict, judge
from nemo_reasoning.doctor.machine import look_around
from nemo_reasoning.doctor.needs import Needs, needs_of
from nemo_reasoning.terminal import plain_console

_COLOURS = {Verdict.ok: "green", Verdict.warn: "yellow", Verdict.fail: "bold red"}


def examine(settings: DoctorSettings) -> bool:
    """Print the answer, and return whether the training would run.

    Args:
        settings: The training, and how to answer.
    """
    needs = needs_of(settings)
    checks = judge(look_around(settings), needs)
    if settings.output is Output.json:
        print(json.dumps(answer(checks, needs), indent=2))
    else:
        show(checks, needs, plain_console())
    return not _failed(checks)


def _failed(checks: list[Check]) -> list[Check]:
    return [check for check in checks if check.verdict is Verdict.fail]


def answer(checks: list[Check], needs: Needs) -> dict[str, object]:
    """Return the answer for programs: `ok`, `plan`, `speed`, and `checks` with name, found, needed, verdict, remedy."""
    lines = [{**asdict(check), "verdict": check.verdict.value} for check in checks]
    return {"ok": not _failed(checks), "plan": needs.plan, "speed": needs.speed, "checks": lines}


def show(checks: list[Check], needs: Needs, console: Console) -> None:
    """Print a table, then what to do, then the result."""
    table = Table("check", "found", "needed", "verdict")
    for check in checks:
        colour = _COLOURS[check.verdict]
        table.add_row(check.name, check.found, check.needed, Text(check.verdict.value, style=colour))
    console.print(table)
    if needs.speed is not None:
        console.print(f"speed: {needs.speed}")
    for check in sorted(checks, key=lambda check: check.verdict is not Verdict.fail):
        if check.remedy:
            verdict = (check.verdict.value, _COLOURS[check.verdict])
            console.print(Text.assemble(verdict, f" {check.name}: "), end="")
            console.print(check.remedy)
    failed = len(_failed(checks))
    if failed:
        console.print(Text.assemble(("Training would fail", "bold red"), f": {failed} of {len(checks)} checks."))
    else:
        place = ", on the CPU" if needs.on_cpu else ""
        console.print(Text.assemble(("Training can start", "green"), f"{place}."))
