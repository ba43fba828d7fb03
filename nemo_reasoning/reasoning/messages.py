"""Turns of a dialogue, and the two modes of thinking."""

from dataclasses import dataclass
from typing import Any, Literal

Mode = Literal["on", "off"]
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a dialogue.

    Attributes:
        role: Who speaks.
        content: What is said.
        target: Whether an assistant turn is trained on; False makes it context only.
        excluded: Whether its author marked it as not to be trained on.
        tool_calls: Calls an assistant makes, as OpenAI writes them.
        tool_call_id: Which call a tool's turn answers.
        name: Name of the tool that speaks.
        tools: Definitions of the tools of the dialogue, which its first turn carries.
    """

    role: Role
    content: str
    target: bool = True
    excluded: bool = False
    tool_calls: tuple[dict[str, Any], ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    tools: tuple[Any, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the turn as chat templates take it."""
        turn: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            turn["tool_calls"] = list(self.tool_calls)
        if self.tool_call_id is not None:
            turn["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            turn["name"] = self.name
        return turn
