"""The thinking switch in a prompt, and the thinking in an answer."""

from collections.abc import Sequence
from typing import NamedTuple

from nemo_reasoning.data.schema import (
    THINK_CLOSE,
    THINK_OPEN,
    THINK_SYSTEM,
    Message,
    Mode,
    system_prompt,
)
from nemo_reasoning.errors import EngineError


class Split(NamedTuple):
    """A model's text, divided.

    Attributes:
        reasoning: What stands in the thinking block, without tags.
        answer: What stands after it; empty if the thinking never ends.
        well_formed: Whether the text has the format its mode asks for.
    """

    reasoning: str
    answer: str
    well_formed: bool


def split_thinking(text: str, mode: Mode, *, finished: bool = True) -> Split:
    """Divide what the model wrote into reasoning and answer.

    Well-formed with thinking on: one block at the very start, then an answer. Off: an answer and no
    tag at all. Malformed text is divided at its last closing tag, so that the answer a user would
    read is still found; a tag that is open at the end hides everything after it.

    Args:
        text: The whole completion.
        mode: What the model was asked for.
        finished: Whether the model ended by itself; a text cut at a token limit is never well-formed.
    """
    opened, closed = text.count(THINK_OPEN), text.count(THINK_CLOSE)
    before, tag, after = text.rpartition(THINK_CLOSE)
    answer, reopened, unfinished = after.partition(THINK_OPEN)
    thought = before + tag + reopened + unfinished
    reasoning = thought.replace(THINK_OPEN, "").replace(THINK_CLOSE, "").strip()
    answer = answer.strip()
    leading = text.lstrip().startswith(THINK_OPEN)
    expected = (opened, closed, leading) == ((1, 1, True) if mode == "on" else (0, 0, False))
    return Split(reasoning, answer, finished and expected and bool(answer))


def with_switch(messages: Sequence[Message], mode: Mode) -> tuple[Message, ...]:
    """Return the dialogue with the switch at the head of its system turn, in front of the user's own.

    Raises:
        EngineError: The system turn already carries the switch of the other mode, or none is the first.
    """
    if not messages or messages[0].role != "system":
        return (Message("system", system_prompt(mode)), *messages)
    own = messages[0].content
    found = [known for known, switch in THINK_SYSTEM.items() if own.startswith(switch)]
    if found == [mode]:
        return tuple(messages)
    if found:
        raise EngineError(f"the system turn says {own!r} but mode={mode}; remove one of the two")
    return (Message("system", system_prompt(mode, own)), *messages[1:])
