"""Typed settings of the doctor: those of the training it judges, and how it answers."""

from dataclasses import dataclass
from enum import Enum

from nemo_reasoning.config import SftSettings


class Output(Enum):
    """How the doctor answers."""

    table = "table"
    json = "json"


@dataclass
class DoctorSettings(SftSettings):
    """conf/doctor.yaml."""

    output: Output
    timeout_seconds: float
