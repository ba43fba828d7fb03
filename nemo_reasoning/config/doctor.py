"""Settings of recipes/doctor.py: those of the training it judges, and how it answers."""

from dataclasses import dataclass
from enum import Enum

from nemo_reasoning.config import checks
from nemo_reasoning.config.train import SftSettings


class Output(Enum):
    """How the doctor answers."""

    table = "table"
    json = "json"


@dataclass
class DoctorSettings(SftSettings):
    """conf/doctor.yaml."""

    output: Output
    timeout_seconds: float


def validate(settings: DoctorSettings) -> None:
    """Refuse what keeps the doctor from answering; whether the training would run is its answer.

    Raises:
        ConfigError: Lists every problem found.
    """
    problems = checks.positive({"timeout_seconds": settings.timeout_seconds})
    if settings.launch.starts_elsewhere:
        problems.append(
            f"launch={settings.launch.kind.value}: the doctor judges the machine it runs on; leave launch out"
        )
    checks.refuse(problems)
