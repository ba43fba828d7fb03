"""Definitions and calls of tools, in the shapes of public data sets, as OpenAI writes them."""

import json
from collections.abc import Mapping
from typing import Any

from nemo_reasoning.data.schemas.columns import EMPTY
from nemo_reasoning.errors import RowError

_ARGUMENTS = ("arguments", "parameters", "args", "input")
_CALL_KEYS = frozenset({"id", "type", "index", "name", "function", *_ARGUMENTS})


def decoded(text: str, what: str) -> Any:
    """Return the JSON value of a text.

    Raises:
        RowError: It is none; `what` names it.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RowError(f"wrong type: {what} is text that is not JSON ({error})") from error


def read_tools(tools: Any) -> tuple[Any, ...]:
    """Return the definitions of a row's tools: a list, or the JSON text of one, or a list of such texts.

    Raises:
        RowError: They are something else.
    """
    if tools in EMPTY:
        return ()
    if isinstance(tools, str):
        tools = decoded(tools, "tools")
    if not isinstance(tools, list):
        raise RowError(f"wrong type: tools is a {type(tools).__name__} instead of a list")
    tools = [decoded(tool, "a tool") if isinstance(tool, str) else _without_nulls(tool) for tool in tools]
    if wrong := [tool for tool in tools if not isinstance(tool, Mapping)]:
        raise RowError(f"wrong type: a tool is a {type(wrong[0]).__name__}")
    return tuple(tools)


def read_calls(calls: Any) -> tuple[dict[str, Any], ...]:
    """Return the calls of a turn: a list, one call, or the JSON text of either.

    Raises:
        RowError: They are something else, or one has no name.
    """
    if isinstance(calls, str):
        calls = decoded(calls, "tool_calls") if calls.strip() else ()
    if isinstance(calls, Mapping):
        calls = [calls] if calls else ()
    if not isinstance(calls, list | tuple):
        raise RowError(f"wrong type: tool_calls is a {type(calls).__name__}")
    return tuple(map(_call, calls))


def _call(call: Any) -> dict[str, Any]:
    """Return a tool call in OpenAI's form, its arguments decoded, as chat templates read it."""
    if isinstance(call, str):
        call = decoded(call, "a tool call")
    if not isinstance(call, Mapping):
        raise RowError(f"wrong type: a tool call is a {type(call).__name__}")
    function = call.get("function") or call
    if isinstance(function, str):  # beside its arguments
        function = {**call, "name": function, "function": None}
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RowError(f"wrong type: a tool call without a name: {str(call)[:60]}")
    for key in (*call, *function):
        if key not in _CALL_KEYS and (function if key in function else call)[key] not in EMPTY:
            raise RowError(f"unknown key of a tool call: {key}; known are {', '.join(sorted(_CALL_KEYS))}")
    named = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {"type": "function", **named, "function": {"name": function["name"], "arguments": _arguments(function)}}


def _arguments(function: Mapping[str, Any]) -> Any:
    given = [function[key] for key in _ARGUMENTS if function.get(key) not in EMPTY]
    if len(given) > 1:
        raise RowError(f"two sets of arguments in a call of {function['name']}")
    arguments = given[0] if given else {}
    if isinstance(arguments, str):
        arguments = decoded(arguments, "arguments") if arguments.strip() else {}
    else:
        arguments = _without_nulls(arguments)
    if not isinstance(arguments, Mapping):
        raise RowError(f"wrong type: arguments of {function['name']} is a {type(arguments).__name__}")
    return arguments


def _without_nulls(value: Any) -> Any:
    """Return a value without keys that are null: Parquet gives every struct the keys of all others."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value
