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
from nemo_reasoning.inference.parsing import parse


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


def split_thinking(text: str, mode: Mode, *, finished: bool = True, prefilled: bool = False) -> Split:
    """Divide what the model wrote into reasoning and answer.

    Well-formed with thinking on: one block at the very start, then an answer. Off: an answer and no
    tag at all. Malformed text is divided as a stream of it would be: see `ThinkParser`.

    Args:
        text: The whole completion.
        mode: What the model was asked for.
        finished: Whether the model ended by itself; a text cut at a token limit is never well-formed.
        prefilled: Whether the prompt has opened the thinking block already.
    """
    reasoning, answer = parse(text, thinking=prefilled)
    tags = (text.count(THINK_OPEN), text.count(THINK_CLOSE), prefilled or text.lstrip().startswith(THINK_OPEN))
    expected = tags == ((1 - prefilled, 1, True) if mode == "on" else (0, 0, False))
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
