"""What is wrong with a request, said in the words of the protocol and not in a validator's."""

import json
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from nemo_reasoning.serving.protocol import ChatRequest, CompletionRequest

_FIELD = re.compile(r"\w+")  # what else stands in a place is the validator's name of one of several types
_FIELDS = sorted({*ChatRequest.model_fields, *CompletionRequest.model_fields})
_TYPES = ("str", "int", "NamedTool")  # the validator's own names of types, where it tried several
_MOST = 4  # problems told at once


def _number(value: float) -> str:
    """Write a limit as JSON does, a whole number with all its digits."""
    return str(int(value)) if value == int(value) else f"{value:g}"


_EXPECTED = {
    "string": "a text",
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
    "model_attributes": "an object",
}
_BOUNDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "missing": lambda _: "is missing; send it",
    "greater_than_equal": lambda limits: f"give {_number(limits['ge'])} or more",
    "greater_than": lambda limits: f"give more than {_number(limits['gt'])}",
    "less_than_equal": lambda limits: f"give {_number(limits['le'])} or less",
    "less_than": lambda limits: f"give less than {_number(limits['lt'])}",
    "literal_error": lambda limits: f"give {limits['expected'].replace('True', 'true').replace('False', 'false')}",
    "too_short": lambda limits: f"give {limits['min_length']} or more",
    "string_too_short": lambda _: "give a text that is not empty",
    "string_too_long": lambda limits: f"give {limits['max_length']} characters or fewer",
    "value_error": lambda limits: str(limits["error"]),
    "string_unicode": lambda _: "give a text of whole Unicode characters",
}


def explain(errors: Sequence[Any]) -> tuple[str, str | None]:
    """Return a message that names the fields at fault, and the first of them."""
    told: dict[str, list[str]] = {}
    got: dict[str, str] = {}
    for error in errors:
        field = _field(error)
        said = _said(error)
        if said not in told.setdefault(field, []):
            told[field].append(said)
        got.setdefault(field, _short(error.get("input")))
    inner = tuple(field for field in told if field)  # where a part of a list is wrong, a list is what was expected
    outer = [field for field in inner if any(other.startswith(f"{field}.") for other in inner)]
    lines = [_line(field, said, got[field]) for field, said in told.items() if field not in outer][:_MOST]
    return "; ".join(lines), next((field for field in inner if field not in outer), None)


def _line(field: str, said: list[str], got: str) -> str:
    text = ", or ".join([said[0], *(one.removeprefix("give ") for one in said[1:])]) + got
    return f"{field}: {text}" if field else text


def _said(error: Any) -> str:
    kind, limits = error["type"], error.get("ctx", {})
    if kind == "json_invalid":
        return f"the body is no JSON: {limits['error']} at character {error['loc'][-1]}"
    if kind == "missing" and len(error["loc"]) < 2:
        return "the body is missing; send a JSON object"
    if kind in ("model_attributes_type", "model_type") and len(error["loc"]) < 2:
        return "the body is no JSON object; send one, with Content-Type: application/json"
    if kind == "extra_forbidden":
        name = str(error["loc"][-1])
        near = [] if name in _FIELDS else get_close_matches(name, _FIELDS, n=1)  # it may be the other endpoint's
        return f"unknown field; did you mean {near[0]}?" if near else "unknown field; remove it"
    if kind == "too_long":
        return f"give {limits['max_length']} or fewer" if limits["max_length"] else "is not supported here; remove it"
    if kind in _BOUNDS:
        return _BOUNDS[kind](limits)
    what = next((text for name, text in _EXPECTED.items() if kind in (f"{name}_type", f"{name}_parsing", name)), None)
    return f"give {what or ('a whole number' if kind.startswith('int') else 'another value')}"


def _field(error: Any) -> str:
    """Return the place of an error as a client would write it."""
    *path, last = [""] if error["type"] == "json_invalid" else list(map(str, error["loc"][1:])) or [""]
    named = [part for part in path if _FIELD.fullmatch(part)]
    if _FIELD.fullmatch(last) or error["type"] == "extra_forbidden":
        named.append(last)
    return ".".join(part for part in named if part not in _TYPES)


def _short(value: Any) -> str:
    """Return a plain value as it was sent, unless it is long."""
    if not isinstance(value, str | int | float | bool):
        return ""
    text = json.dumps(value)
    return f" (got {text})" if len(text) <= 60 else ""
