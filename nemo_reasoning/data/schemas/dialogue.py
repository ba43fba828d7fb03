"""Dialogues to train on: checked, with one switch and one format of thinking; turned off in a share of the rows."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nemo_reasoning.errors import RowError
from nemo_reasoning.reasoning.messages import Message, Mode
from nemo_reasoning.reasoning.switch import THINK_SYSTEM, system_prompt, take_switches
from nemo_reasoning.reasoning.tags import with_thinking
from nemo_reasoning.reasoning.trace import TraceError, is_blank, split_trace

_EXCERPT = 60
_INITIALS = {"user": "u", "assistant": "a", "tool": "t", "system": "s"}
_ORDER = re.compile(r"(?:ua(?:t+a)*)+")


@dataclass(frozen=True, slots=True)
class Row:
    """A dialogue to learn from.

    Attributes:
        messages: Turns in order: the system turn with the switch, then user and assistant in turn; tools may
            answer an assistant before it goes on.
        mode: Whether the last assistant turn thinks.
        category: Subset the row belongs to, such as "math"; empty if unknown.
        license: Licence of the row; empty if unknown.
        origin: "file:byte", for messages to people.
        unused: Answers beside the one that was chosen.
        unknown: Columns that were not read because nobody knows them.
    """

    messages: tuple[Message, ...]
    mode: Mode
    category: str
    license: str
    origin: str
    unused: int = 0
    unknown: frozenset[str] = field(default=frozenset())

    @property
    def question(self) -> str:
        """What the user says first."""
        return self.messages[1].content

    @property
    def instructions(self) -> str:
        """What the system turn says besides the switch."""
        return self.messages[0].content.removeprefix(THINK_SYSTEM[self.mode]).removeprefix("\n\n")

    @property
    def last(self) -> tuple[str | None, str]:
        """Trace and answer of the last turn."""
        said = self.messages[-1].content
        return split_trace(said) if self.mode == "on" else (None, said)


def settle(
    turns: Sequence[Message], *, stated: frozenset[Mode], tools: tuple[object, ...] = ()
) -> tuple[tuple[Message, ...], Mode]:
    """Put the switch into the system turn and the thinking into the one format.

    The last turn decides the mode. An earlier turn without thinking in a thinking dialogue, as
    chats keep their history, is context: as a target it would teach to ignore the switch.

    Args:
        turns: Perhaps a system turn, then user and assistant in turn.
        stated: What the row says about its mode elsewhere.
        tools: Definitions of the tools of the dialogue.

    Returns:
        The dialogue and its mode.

    Raises:
        RowError: "reason: detail" of what makes the dialogue unusable.
    """
    plain, switches = take_switches(turns)
    stated = stated | {switch.mode for switch in switches}
    has_system = bool(plain) and plain[0].role == "system"
    instructions = plain[0].content.strip() if has_system else ""
    spoken = plain[1:] if has_system else plain
    _check_order(spoken)
    last = len(spoken) - 1
    parts = {
        place: _settled(turn, stated, last=place == last)
        for place, turn in enumerate(spoken)
        if turn.role == "assistant"
    }
    mode: Mode = "on" if parts[last][1] else "off"
    if stated | {mode} != {mode}:
        raise RowError(f"contradicts its switch: the answer is thinking {mode}: {spoken[-1].content[:_EXCERPT]!r}")
    if mode == "off" and any(thinks for _, thinks in parts.values()):
        raise RowError(f"thinks in an earlier turn only: {spoken[-1].content[:_EXCERPT]!r}")
    messages = [Message("system", system_prompt(mode, instructions), tools=tuple(tools))]
    for place, turn in enumerate(spoken):
        if place in parts:
            content, thinks = parts[place]
            target = turn.target and (mode == "off" or thinks)
            if content != turn.content or target != turn.target:
                turn = replace(turn, content=content, target=target)
        messages.append(turn)
    return tuple(messages), mode


def _check_order(spoken: Sequence[Message]) -> None:
    roles = [turn.role for turn in spoken]
    if not roles or roles[-1] != "assistant":
        raise RowError(f"no final assistant turn: roles are {roles}")
    if not _ORDER.fullmatch("".join(_INITIALS[role] for role in roles)):
        raise RowError(f"turns do not alternate: roles are {roles}")
    if any(turn.role == "user" and is_blank(turn.content) for turn in spoken):
        raise RowError(f"empty user turn: roles are {roles}")
    if spoken[-1].tool_calls:
        raise RowError("ends with a tool call: nobody answers it")


def _settled(turn: Message, stated: frozenset[Mode], *, last: bool) -> tuple[str, bool]:
    """Return a turn's content in the one format, and whether it thinks; an earlier one with an empty trace does not."""
    try:
        trace, answer = split_trace(turn.content, thinks=stated == {"on"})
    except TraceError as error:
        raise RowError(f"malformed thinking: {error}") from error
    if not last and trace is not None and is_blank(trace):
        trace = None
    if trace is not None and is_blank(trace):
        raise RowError(f"empty thinking: {turn.content[:_EXCERPT]!r}")
    if is_blank(answer) and not turn.tool_calls:
        raise RowError(f"empty answer: {turn.content[:_EXCERPT]!r}")
    if trace is None:
        return answer, False
    content = with_thinking(trace, answer)
    if content == turn.content:
        return turn.content, True  # the same object, whose parts are known
    if ("`" in trace or "</" in trace) and not _survives(content, trace, answer):
        raise RowError(f"malformed thinking: tags within the trace {trace[:_EXCERPT]!r}")
    return content, True


def _survives(content: str, trace: str, answer: str) -> bool:
    """Tell whether a trace with tags or code in it is found again in the one format."""
    try:
        return split_trace(content) == (trace, answer)
    except TraceError:
        return False


def without_thinking(row: Row) -> Row:
    """Return a row with the switch off and all traces removed.

    Every assistant turn is a target but those that their author marked as context.
    """
    first, *spoken = row.messages
    messages = [replace(first, content=system_prompt("off", row.instructions))]
    for turn in spoken:
        if turn.role == "assistant":
            turn = replace(turn, content=split_trace(turn.content)[1], target=not turn.excluded)
        messages.append(turn)
    return replace(row, mode="off", messages=tuple(messages))


def turned_off(row: Row, *, probability: float, seed: int) -> Row:
    """Return a thinking row without its thinking, with some probability; any other row as it is."""
    if row.mode == "off":
        return row
    text = "\n".join(message.content for message in row.messages)
    return without_thinking(row) if fraction(text, purpose="switch", seed=seed) < probability else row


def fraction(text: str | bytes, *, purpose: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on nothing but the arguments.

    What is decided by it does not change with the order of the rows, nor with who works on them.
    """
    said = text.encode() if isinstance(text, str) else text
    digest = hashlib.sha256(f"{seed}:{purpose}:".encode() + said).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
