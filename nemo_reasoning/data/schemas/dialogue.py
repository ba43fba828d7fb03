"""The thinking switch of a dialogue: settled when a row is read, turned off in a share of the rows."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nemo_reasoning.errors import RowError
from nemo_reasoning.reasoning.messages import Message, Mode
from nemo_reasoning.reasoning.switch import find_switch, system_prompt, take_switches
from nemo_reasoning.reasoning.tags import split_trace, with_thinking

_EXCERPT = 60


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


def settle(turns: Sequence[Message], *, stated: frozenset[Mode]) -> tuple[tuple[Message, ...], Mode]:
    """Put the switch into the system turn and the thinking into the one format.

    The last turn decides the mode. An earlier turn without thinking in a thinking dialogue, as
    chats keep their history, is context: as a target it would teach to ignore the switch.

    Args:
        turns: Perhaps a system turn, then user and assistant in turn.
        stated: What the row says about its mode elsewhere.

    Returns:
        The dialogue and its mode.

    Raises:
        RowError: "reason: detail" of what makes the dialogue unusable.
    """
    plain, switches = take_switches(turns)
    has_system = bool(plain) and plain[0].role == "system"
    instructions = plain[0].content.strip() if has_system else ""
    spoken = plain[1:] if has_system else plain
    _check_order(spoken)
    parts = [_split(turn.content) for turn in spoken[1::2]]
    mode: Mode = "off" if parts[-1][0] is None else "on"
    if stated | {switch.mode for switch in switches} | {mode} != {mode}:
        raise RowError(f"contradicts its switch: the answer is thinking {mode}: {spoken[-1].content[:_EXCERPT]!r}")
    if mode == "off" and any(trace is not None for trace, _ in parts):
        raise RowError(f"thinks in an earlier turn only: {spoken[-1].content[:_EXCERPT]!r}")
    messages = [Message("system", system_prompt(mode, instructions))]
    for user, (trace, answer) in zip(spoken[::2], parts, strict=True):
        content = answer if trace is None else with_thinking(trace, answer)
        target = mode == "off" or trace is not None
        messages += [user, Message("assistant", content, target=target)]
    return tuple(messages), mode


def _check_order(spoken: Sequence[Message]) -> None:
    roles = [turn.role for turn in spoken]
    if not roles or roles[-1] != "assistant":
        raise RowError(f"no final assistant turn: roles are {roles}")
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise RowError(f"turns do not alternate: roles are {roles}")
    if not all(turn.content.strip() for turn in spoken[::2]):
        raise RowError(f"empty user turn: roles are {roles}")


def _split(content: str) -> tuple[str | None, str]:
    try:
        trace, answer = split_trace(content)
    except ValueError as error:
        raise RowError(f"malformed thinking: {error}") from error
    if trace == "":
        raise RowError(f"empty thinking: {content[:_EXCERPT]!r}")
    if not answer:
        raise RowError(f"empty answer: {content[:_EXCERPT]!r}")
    return trace, answer


def without_thinking(row: Row) -> Row:
    """Return a row with the switch off and all traces removed; every assistant turn is a target."""
    instructions = find_switch(row.messages[0].content, "system").rest
    messages = [Message("system", system_prompt("off", instructions))]
    for turn in row.messages[1:]:
        messages.append(Message("assistant", split_trace(turn.content)[1]) if turn.role == "assistant" else turn)
    return replace(row, mode="off", messages=tuple(messages))


def turned_off(row: Row, *, probability: float, seed: int) -> Row:
    """Return a thinking row without its thinking, with some probability; any other row as it is."""
    if row.mode == "off":
        return row
    text = "\n".join(message.content for message in row.messages)
    return without_thinking(row) if fraction(text, purpose="switch", seed=seed) < probability else row


def fraction(text: str, *, purpose: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on nothing but the arguments.

    What is decided by it does not change with the order of the rows, nor with who works on them.
    """
    digest = hashlib.sha256(f"{seed}:{purpose}:{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
