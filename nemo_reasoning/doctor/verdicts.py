"""What a check comes to."""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What a check comes to; only `fail` keeps a training from running."""

    ok = "ok"
    warn = "warn"
    fail = "fail"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's answer.

    Attributes:
        name: What was looked at.
        found: What is there.
        needed: What there should be.
        verdict: What that comes to.
        remedy: What to do about it; empty where nothing is to be done.
    """

    name: str
    found: str
    needed: str
    verdict: Verdict
    remedy: str = ""


def judged(name: str, found: str, needed: str, *, holds: bool, remedy: str, otherwise: Verdict = Verdict.fail) -> Check:
    """Return a check that is ok if something holds, and otherwise says what to do."""
    return Check(name, found, needed, Verdict.ok if holds else otherwise, "" if holds else remedy)
