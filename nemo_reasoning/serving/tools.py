"""Calls of tools in what a model writes: Hermes' and Qwen's tags, and the JSON of Llama 3."""

import json
import re
import uuid
from collections.abc import Collection
from typing import Any

_TAGGED = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)
_NOTHING_ELSE = re.compile(r"[\s;]*")


def find_tool_calls(text: str, names: Collection[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the text without its calls, and the calls as OpenAI writes them.

    Anything that is not a whole call of one of the tools stays text.

    Args:
        text: A whole answer.
        names: Of the tools that the request offers.
    """
    tagged = list(_TAGGED.finditer(text))
    found = [call for match in tagged if (call := _call(_parsed(match[1]), names))]
    if tagged and len(found) == len(tagged):
        return _TAGGED.sub("", text).strip(), found
    bare = _bare_objects(text)
    found = [call for value in bare if (call := _call(value, names))]
    return ("", found) if found and len(found) == len(bare) else (text, [])


def _bare_objects(text: str) -> list[Any]:
    """Return the JSON values of a text that holds nothing else, but for semicolons between them."""
    values, place, decoder = [], 0, json.JSONDecoder()
    while (place := _NOTHING_ELSE.match(text, place).end()) < len(text):  # type: ignore[union-attr]  # it always matches
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError:
            return []
        values += value if isinstance(value, list) else [value]
    return values


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def _call(value: Any, names: Collection[str]) -> dict[str, Any] | None:
    if not isinstance(value, dict) or value.get("name") not in names:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _parsed(arguments)
    if not isinstance(arguments, dict):
        return None
    function = {"name": value["name"], "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
