"""What the checks beside the settings share: ranges of numbers, and the one place that refuses."""

from collections.abc import Iterable, Mapping, Sequence
from math import inf

from nemo_reasoning.errors import ConfigError

Values = Mapping[str, float | None]  # by dotted key; None is not checked


def refuse(problems: Sequence[str]) -> None:
    """Do nothing without problems.

    Raises:
        ConfigError: Lists every problem.
    """
    if problems:
        raise ConfigError(as_list(problems))


def as_list(problems: Iterable[str]) -> str:
    """Return problems as the text of an error: a line each, so that all can be seen and mended together."""
    return "\n".join(f"- {problem}" for problem in problems)


def positive(values: Values) -> list[str]:
    """Return a problem for each value that is not above 0, or not finite."""
    return [f"{key}={value}: must be above 0" for key, value in _given(values) if not 0 < value < inf]


def not_negative(values: Values) -> list[str]:
    """Return a problem for each value below 0, or not finite."""
    return [f"{key}={value}: must be 0 or above" for key, value in _given(values) if not 0 <= value < inf]


def shares(values: Values) -> list[str]:
    """Return a problem for each value outside [0, 1]."""
    return [f"{key}={value}: must lie between 0 and 1" for key, value in _given(values) if not 0 <= value <= 1]


def below_one(values: Values) -> list[str]:
    """Return a problem for each value outside [0, 1)."""
    return [f"{key}={value}: must be 0 or above, and below 1" for key, value in _given(values) if not 0 <= value < 1]


def _given(values: Values) -> list[tuple[str, float]]:
    return [(key, value) for key, value in values.items() if value is not None]
