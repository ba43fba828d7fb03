"""Turns of a dialogue as clients send them."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

Text = Annotated[str, StringConstraints(max_length=2_000_000)]


class Strict(BaseModel):
    """An object without unknown fields; a field that is null counts as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return {key: entry for key, entry in value.items() if entry is not None} if isinstance(value, dict) else value


class Lenient(Strict):
    """An object whose unknown fields are ignored; see `ChatRequest.ignored`."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


_UNREAD = ("image", "audio", "video", "file")


class TextPart(Lenient):
    """Part of a message; pictures and sounds are not understood."""

    type: Literal["text", "input_text", "output_text"]
    text: Text

    @model_validator(mode="before")
    @classmethod
    def _refuse_media(cls, value: Any) -> Any:
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and any(word in kind for word in _UNREAD):
            raise ValueError(f"{kind[:40]!r} is not supported: the service reads text only; remove it")
        return value


class CalledFunction(Lenient):
    """A function with its arguments, as JSON."""

    name: str
    arguments: str = "{}"


class ToolCall(Lenient):
    """A call that an assistant made."""

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction

    def for_template(self) -> dict[str, Any]:
        """Return the call as chat templates take it: arguments as an object where they are one."""
        try:
            arguments: Any = json.loads(self.function.arguments)
        except (ValueError, RecursionError):  # also endless digits, endless nesting
            arguments = self.function.arguments
        return {"id": self.id, "type": "function", "function": {"name": self.function.name, "arguments": arguments}}


class ChatMessage(Lenient):
    """A turn. Of an assistant's earlier turns the reasoning is not read again."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] = ""
    name: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] = []
    tool_call_id: str | None = None
    prefix: bool = False

    @model_validator(mode="after")
    def _says_something(self) -> "ChatMessage":
        if "content" not in self.model_fields_set and self.role != "assistant":
            raise ValueError("has no content; send a text")
        return self

    @property
    def is_system(self) -> bool:
        """Whether it instructs the model."""
        return self.role in ("system", "developer")

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
