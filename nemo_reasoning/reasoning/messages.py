"""Turns of a dialogue, and the two modes of thinking."""

from dataclasses import dataclass
from typing import Literal

Mode = Literal["on", "off"]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a dialogue.

    Attributes:
        role: Who speaks.
        content: What is said.
        target: Whether an assistant turn is trained on; False makes it context only.
    """

    role: Role
    content: str
    target: bool = True

    def to_dict(self) -> dict[str, str]:
        """Return the turn as chat templates take it."""
        return {"role": self.role, "content": self.content}
