"""What the checks beside the settings share: ranges of numbers, and the one place that refuses."""

import re
from collections.abc import Iterable, Mapping, Sequence
from math import inf

from nemo_reasoning.errors import ConfigError

Values = Mapping[str, float | None]  # by dotted key; None is not checked
_SCHEME = r"[a-z][a-z0-9+.-]*://"
_PARAMETERS = r"access_?key|access_?token|api_?key|awsaccesskeyid|password|secret|sig|signature|token"
_SIGNED = r"x-(amz|goog)-(credential|security-token|signature)"
# `key` and `auth` name many things: there only a value that nobody would write by hand is a secret.
_OPAQUE = r"(key|auth)=(aiza[\w-]{35}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[a-z]*\d)(?=\d*[a-z])[a-z0-9]{20})"
_PREFIXED = r"(hf_|sk-|nvapi-|gh[opsu]_|github_pat_)[A-Za-z0-9_-]{20,}"
_SECRETS = {
    "a password": re.compile(rf"{_SCHEME}[^/\s@]*:[^/\s@]+@\S*", re.IGNORECASE),
    "a key or signature": re.compile(
        rf"{_SCHEME}\S*[?&](({_PARAMETERS}|{_SIGNED})=[^&#\s]|{_OPAQUE})\S*", re.IGNORECASE
    ),
    "an access token": re.compile(rf"{_PREFIXED}|{_SCHEME}{_PREFIXED}@\S*"),
}


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


def hidden(text: str) -> str:
    """Return a text with what looks like a password, key or token in it replaced by "***"."""
    for pattern in _SECRETS.values():
        text = pattern.sub("***", text)
    return text


def secret(key: str, value: str) -> str | None:
    """Return a problem for a setting that holds a password, key or token; settings are shown and written to files."""
    for name, pattern in _SECRETS.items():
        if pattern.fullmatch(value.strip()):
            return (
                f"{key} holds {name}, which would be written into files and cards, and shown in lists of processes; "
                "set it in the environment (HF_TOKEN, AWS_SECRET_ACCESS_KEY and the like), or fetch the file yourself"
            )
    return None
