"""A chat row, and the thinking mode it has."""

from dataclasses import dataclass

from nemo_reasoning.reasoning.messages import Message, Mode


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
