"""A chat row, and the thinking switch it carries."""

from dataclasses import dataclass
from typing import Literal

Mode = Literal["on", "off"]
Role = Literal["system", "user", "assistant"]

THINK_SYSTEM: dict[Mode, str] = {"on": "detailed thinking on", "off": "detailed thinking off"}
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
IGNORED_LABEL = -100  # of a position that is not supervised, as everywhere in PyTorch


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


@dataclass(frozen=True, slots=True)
class Row:
    """A dialogue to learn from.

    Attributes:
        messages: Turns in order: the system turn with the switch, then user and assistant in turn.
        mode: Whether the last assistant turn thinks.
        category: Subset the row belongs to, such as "math"; empty if unknown.
        license: Licence of the row; empty if unknown.
        origin: "file:line", for messages to people.
    """

    messages: tuple[Message, ...]
    mode: Mode
    category: str
    license: str
    origin: str

    @property
    def question(self) -> str:
        """What the user says first."""
        return self.messages[1].content


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used.

    Attributes:
        file: Where it stands.
        line: In that file, from 1.
        reason: Why, in a few words that are the same for rows of the same kind.
        detail: What was found.
    """

    file: str
    line: int
    reason: str
    detail: str

    @classmethod
    def at(cls, origin: str, error: Exception) -> "Rejected":
        """Reject the row at "file:line" for an error that says "reason: detail"."""
        file, _, line = origin.rpartition(":")
        reason, _, detail = str(error).partition(": ")
        return cls(file, int(line), reason, detail[:200])


def system_prompt(mode: Mode, instructions: str = "") -> str:
    """Return the system turn of a mode, with a row's own instructions after the switch."""
    return f"{THINK_SYSTEM[mode]}\n\n{instructions}" if instructions else THINK_SYSTEM[mode]


def with_thinking(trace: str, answer: str) -> str:
    """Return an assistant turn that thinks: the format every part of the package relies on."""
    return f"{THINK_OPEN}\n{trace.strip()}\n{THINK_CLOSE}\n\n{answer.strip()}"


def split_trace(text: str) -> tuple[str | None, str]:
    """Split an assistant turn into trace and answer, whatever white space surrounds the tags.

    Returns:
        (trace, answer), with None for a turn without tags.

    Raises:
        ValueError: The tags are unclosed, repeated, or do not come first; the message names it.
    """
    opened, closed = text.count(THINK_OPEN), text.count(THINK_CLOSE)
    if opened == closed == 0:
        return None, text.strip()
    if (opened, closed) != (1, 1) or not text.lstrip().startswith(THINK_OPEN):
        raise ValueError(f"{opened} {THINK_OPEN} and {closed} {THINK_CLOSE} tags, or text before them")
    before, _, answer = text.partition(THINK_CLOSE)
    return before.replace(THINK_OPEN, "").strip(), answer.strip()
