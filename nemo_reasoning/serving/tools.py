"""Calls of tools in what a model writes: Hermes' and Qwen's tags, and the JSON of Llama 3."""

import json
import re
import uuid
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from nemo_reasoning.reasoning.tags import partial_suffix
from nemo_reasoning.serving.messages import Lenient

_TAG, _JSON = "<tool_call>", "{[;"  # how calls begin
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
        rest = _TAGGED.sub("", text).rstrip()
        return rest if text[: tagged[0].start()].strip() else rest.lstrip(), found
    bare = _bare_objects(text)
    found = [call for value in bare if (call := _call(value, names))]
    return ("", found) if found and len(found) == len(bare) else (text, [])


class Function(Lenient):
    """A function the model may call."""

    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] = {}


class Tool(Lenient):
    """A tool; functions are the only ones."""

    type: Literal["function"]
    function: Function


class FunctionName(Lenient):
    """Which function to call."""

    name: str


class NamedTool(Lenient):
    """A tool that has to be called."""

    type: Literal["function"]
    function: FunctionName


class ToolStream:
    """Divides an answer that comes in pieces into content, told at once, and calls, told at its end.

    The content, joined, is that of `find_tool_calls`.
    """

    def __init__(self, names: Collection[str]) -> None:
        """Take the names of the tools that the request offers."""
        self._names, self._text, self._said = names, "", 0

    def push(self, text: str) -> str:
        """Take the next piece of the answer, and return the content that is certain by now."""
        self._text += text
        if self._text.lstrip().startswith(tuple(_JSON)):
            return ""
        end = self._text.find(_TAG)
        end = end if end >= 0 else len(self._text) - len(partial_suffix(self._text, (_TAG,)))
        end = max(self._said, len(self._text[:end].rstrip()))
        said, self._said = self._text[self._said : end], end
        return said

    def finish(self) -> tuple[str, list[dict[str, Any]]]:
        """Return the rest of the content, and the calls."""
        content, calls = find_tool_calls(self._text, self._names)
        return content[self._said :], calls


def call_schema(tools: Sequence[dict[str, Any]]) -> str:
    """Return the JSON schema of a call of one of the tools, as JSON.

    Args:
        tools: As OpenAI writes them, with their parameters as JSON schemas.
    """
    parameters = [tool["function"].get("parameters") or {"type": "object"} for tool in tools]
    definitions = {
        f"tool{number}": _rebased(schema, f"#/$defs/tool{number}") for number, schema in enumerate(parameters)
    }
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool["function"]["name"]}, "arguments": {"$ref": f"#/$defs/tool{number}"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for number, tool in enumerate(tools)
    ]
    return json.dumps({"$defs": definitions, "anyOf": calls})


def _rebased(schema: Any, root: str) -> Any:
    """Return a schema whose references into itself begin at another place."""
    if isinstance(schema, list):
        return [_rebased(each, root) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: root + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _rebased(value, root)
        for key, value in schema.items()
    }


def _bare_objects(text: str) -> list[Any]:
    """Return the JSON values of a text that holds nothing else, but for semicolons between them."""
    values, place, decoder = [], 0, json.JSONDecoder()
    while (place := _NOTHING_ELSE.match(text, place).end()) < len(text):  # type: ignore[union-attr]  # it always matches
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):  # also endless digits, endless nesting
            return []
        values += value if isinstance(value, list) else [value]
    return values


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _call(value: Any, names: Collection[str]) -> dict[str, Any] | None:
    if not isinstance(value, dict) or value.get("name") not in names:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _parsed(arguments)
    if not isinstance(arguments, dict):
        return None
    try:
        told = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        told.encode()
    except (ValueError, RecursionError):  # NaN, 1e999, half a character; writing takes a deeper stack than reading
        return None
    function = {"name": value["name"], "arguments": told}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
