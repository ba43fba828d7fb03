"""Verdicts on Python, container and packages."""

from collections.abc import Iterator

from nemo_reasoning.backend.versions import REMEDY, SUPPORTED
from nemo_reasoning.doctor.facts import OWN_CONTAINER, Machine
from nemo_reasoning.doctor.needs import Needs
from nemo_reasoning.doctor.verdicts import Check, Verdict, judged

_OLDEST_PYTHON = (3, 11)
_ALWAYS = ("torch", "lightning", "transformers", "hydra-core", "huggingface_hub")


def check_software(machine: Machine, needs: Needs) -> Iterator[Check]:
    """Yield the checks of Python, container and packages."""
    version = tuple(int(part) for part in machine.python.split(".")[:2])
    yield judged(
        "Python", machine.python, "3.11 or newer", holds=version >= _OLDEST_PYTHON, remedy="install a newer Python"
    )
    yield judged(
        "container",
        machine.container or "none",
        "any" if needs.on_cpu else "NVIDIA's NeMo container",
        holds=needs.on_cpu or machine.container not in (None, OWN_CONTAINER),
        remedy="docs/version-matrix.md names the container whose versions work together",
        otherwise=Verdict.warn,
    )
    for name, wanted in SUPPORTED.items():
        problem = machine.problems.get(name)
        found = machine.packages.get(name) or "not installed"
        yield judged(name, found, wanted, holds=problem is None, remedy=f"{problem} {REMEDY}")
    yield from _check_packages(machine, needs)


def _check_packages(machine: Machine, needs: Needs) -> Iterator[Check]:
    needed = [*_ALWAYS, *(["bitsandbytes"] if needs.quantised else [])]
    missing = [name for name in needed if machine.packages.get(name) is None]
    listed = ", ".join(f"{name} {machine.packages[name]}" for name in needed if name not in missing)
    yield judged(
        "packages",
        listed or "none",
        ", ".join(needed),
        holds=not missing,
        remedy=f"{', '.join(missing)} missing. {REMEDY}",
    )
    if not needs.on_cpu and not needs.quantised:
        engine = machine.packages.get("transformer-engine")
        yield judged(
            "Transformer Engine",
            engine or "not installed",
            "for speed",
            holds=engine is not None,
            remedy="torch's layers take its place, slower; NVIDIA's container has it",
            otherwise=Verdict.warn,
        )
