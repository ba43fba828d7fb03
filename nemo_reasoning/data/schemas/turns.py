"""Read turns of a dialogue, however a data set writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from nemo_reasoning.data.schemas.columns import (
    EMPTY,
    IGNORED_KEYS,
    REFUSED,
    TRACES,
    may_be_trace,
    may_be_weight,
    renamed,
)
from nemo_reasoning.data.schemas.content import checked_text, content_with, one_trace, read_parts
from nemo_reasoning.data.schemas.tools import decoded, read_calls
from nemo_reasoning.errors import RowError
from nemo_reasoning.reasoning.messages import Message, Role
from nemo_reasoning.reasoning.switch import stated_mode

ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bing", "bard", "ai", "bot"), "assistant"),
    **dict.fromkeys(("function_call", "tool_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
    **dict.fromkeys(("tool_response", "tool_result", "function_response"), "tool"),
}
ROLE_KEYS, CONTENT_KEYS = ("role", "from"), ("content", "value", "text")
WEIGHT_KEYS = ("weight", "train", "loss_mask", "loss", "training", "trainable")
CALL_KEYS = ("tool_calls", "function_call", "tool_call_id", "name")
_CALLERS = ("function_call", "tool_call")
_REFUSED_KEYS = {
    **{key: why for key, why in REFUSED.items() if key not in (*WEIGHT_KEYS, *CALL_KEYS)},
    "tools": "definitions of tools are a column of the row",
    "channel": "write what stands in the analysis channel as reasoning_content",
}


@dataclass(frozen=True, slots=True)
class TurnKeys:
    """Names of what a turn holds; each is the first of some that the turn has.

    Attributes:
        role: Who speaks.
        content: What is said.
        weight: Whether it is trained on.
        trace: What is thought before it.
        ignored: Keys that the settings leave out.
    """

    role: tuple[str, ...] = ROLE_KEYS
    content: tuple[str, ...] = CONTENT_KEYS
    weight: tuple[str, ...] = WEIGHT_KEYS
    trace: tuple[str, ...] = TRACES
    ignored: frozenset[str] = frozenset()


@dataclass(slots=True)
class Unread:
    """What was not read.

    Attributes:
        unknown: Columns, and keys of turns as "column.key", that nobody knows.
        traces: Those of them that may hold a trace.
    """

    unknown: set[str] = field(default_factory=set)
    traces: set[str] = field(default_factory=set)

    def add(self, name: str, value: Any, *, column: str = "") -> None:
        """Note a column or a key, unless it is empty."""
        if value not in EMPTY:
            said = f"{column}.{name}" if column else name
            self.unknown.add(said)
            if may_be_trace(name, value):
                self.traces.add(said)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which keys of a turn hold what; None where it has no such key."""

    renames: Mapping[str, str]
    role: str | None
    contents: tuple[str, ...]
    traces: tuple[str, ...]
    weights: tuple[str, ...]
    calls: bool
    refused: tuple[str, ...]
    unknown: tuple[str, ...]


@lru_cache(maxsize=4096)
def _plan(keys: tuple[str, ...], names: TurnKeys) -> _Plan:
    known = frozenset((*names.role, *names.content, *names.trace, *names.weight, *CALL_KEYS))
    renames = renamed(keys, known)
    present = [renames.get(key, key) for key in keys]
    role = next((key for key in names.role if key in present), None)
    contents, traces, weights = (
        tuple(key for key in wanted if key in present and key not in names.ignored)
        for wanted in (names.content, names.trace, names.weight)
    )
    read = {role, *contents, *traces, *weights, *CALL_KEYS, *IGNORED_KEYS, *names.ignored}
    others = [key for key in present if key not in read]
    refused = tuple(key for key in others if key in _REFUSED_KEYS)
    unknown = tuple(key for key in others if key not in _REFUSED_KEYS)
    calls = any(key in present for key in CALL_KEYS)
    return _Plan(renames, role, contents, traces, weights, calls, refused, unknown)


def read_turns(value: Any, column: str, names: TurnKeys, unread: Unread) -> list[Message]:
    """Return the turns in a column: a list, the JSON text of one, or a struct of lists as Parquet files have it.

    Args:
        value: What the column holds.
        column: Its name, for messages to people.
        names: Names of a turn's keys.
        unread: Gets the keys of turns that are not read.

    Raises:
        RowError: It holds no turns, or one that cannot be read.
    """
    if isinstance(value, str):
        value = decoded(value, column)
    if isinstance(value, Mapping):
        value = _transposed(value, column)
    if not isinstance(value, list) or not value:
        raise RowError(f"wrong type: {column} is not a list of turns")
    messages = []
    for turn in _without_pairs(value):
        if not isinstance(turn, dict):
            raise RowError(f"wrong type: a turn of {column} is a {type(turn).__name__}")
        messages.append(_read_turn(turn, column, names, unread))
    return messages


def _without_pairs(turns: list[Any]) -> list[Any]:
    """Return turns where a list holds pairs of input and output, as Capybara's does."""
    if not all(isinstance(turn, dict) and turn.keys() == {"input", "output"} for turn in turns):
        return turns
    pairs = ((("user", turn["input"]), ("assistant", turn["output"])) for turn in turns)
    return [{"role": role, "content": said} for pair in pairs for role, said in pair]


def turns_in_text(text: str) -> list[Any] | None:
    """Return the turns that a text holds as JSON; None if it is prose."""
    if not text.startswith(("[{", "[ {", "[\n")):
        return None
    try:
        value = decoded(text, "")
    except RowError:
        return None
    turns = isinstance(value, list) and all(
        isinstance(turn, dict) and not turn.keys().isdisjoint(ROLE_KEYS) for turn in value
    )
    return value if turns else None


def _transposed(value: Mapping[str, Any], column: str) -> list[dict[str, Any]]:
    """Return the turns of a struct of lists of equal length."""
    lists = {key: entry for key, entry in value.items() if isinstance(entry, list)}
    if not lists or len(lists) < sum(entry is not None for entry in value.values()):
        raise RowError(f"wrong type: {column} is not a list of turns")
    if len({len(entry) for entry in lists.values()}) > 1:
        raise RowError(f"wrong type: the lists in {column} differ in length")
    return [dict(zip(lists, turn, strict=True)) for turn in zip(*lists.values(), strict=True)]


def _read_turn(turn: dict[str, Any], column: str, names: TurnKeys, unread: Unread) -> Message:
    if None in turn.values():
        turn = {key: entry for key, entry in turn.items() if entry is not None}
    plan = _plan(tuple(turn), names)
    if plan.renames:
        turn = {plan.renames.get(key, key): entry for key, entry in turn.items()}
    said = turn.get(plan.role) if plan.role else None
    role = ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        raise RowError(f"unknown role: {said!r} in {column}; roles are {', '.join(sorted(ROLES))}")
    if plan.refused or plan.unknown:
        _check_others(turn, plan, column, unread)
    content = turn[plan.contents[0]] if len(plan.contents) == 1 else _one_content(turn, plan, role)
    if isinstance(content, str) and not (plan.traces or plan.weights or plan.calls or said in _CALLERS):
        return Message(role, checked_text(content, role))
    return _full_turn(turn, plan, role, content, called=said in _CALLERS)


def _check_others(turn: Mapping[str, Any], plan: _Plan, column: str, unread: Unread) -> None:
    """Note the keys of a turn that are not read, and refuse those that change what it means."""
    for key in plan.refused:
        if turn[key] not in EMPTY and (key, turn[key]) != ("channel", "final"):
            raise RowError(f"column {column}.{key}: {_REFUSED_KEYS[key]}")
    for key in plan.unknown:
        if may_be_weight(key, turn[key]):
            raise RowError(f"unknown weight: {column}.{key}={turn[key]!r}; name it with data.columns.weight={key}")
        unread.add(key, turn[key], column=column)


def _one_content(turn: Mapping[str, Any], plan: _Plan, role: Role) -> Any:
    """Return the content of a turn that has it under no name, or under several."""
    said = [turn[key] for key in plan.contents if turn[key] not in EMPTY]
    if any(other != said[0] for other in said):
        raise RowError(f"two contents: in {' and '.join(plan.contents)} of the {role} turn")
    if role == "tool" and not plan.contents:
        raise RowError("empty tool result: the tool turn has no content")
    return said[0] if said else ""


def _full_turn(turn: dict[str, Any], plan: _Plan, role: Role, content: Any, *, called: bool) -> Message:
    """Return a turn with parts, a trace of its own, a weight or tool calls."""
    calls = turn.get("tool_calls") or turn.get("function_call") or ()
    if called:
        content, calls = "", content
    text, trace = read_parts(content, role)
    for key in plan.traces:
        if said := turn[key]:
            if stated_mode(said) is not None:
                raise RowError(f"wrong type: {key} of the {role} turn is {said!r} and no trace")
            trace = one_trace(trace, checked_text(said, role, what=key), role)
    target = _is_target(turn, plan.weights, role)
    message = Message(
        role,
        content_with(trace, text, column="the turn") if trace else text,
        target=target,
        excluded=not target and role == "assistant",
        tool_calls=read_calls(calls),
        tool_call_id=_optional(turn, "tool_call_id") if role == "tool" else None,
        name=_optional(turn, "name") if role == "tool" else None,
    )
    if message.tool_calls and role != "assistant":
        raise RowError(f"tool calls of a {role} turn: only an assistant calls tools")
    return message


def _optional(turn: Mapping[str, Any], key: str) -> str | None:
    value = turn.get(key)
    return value if isinstance(value, str) and value else None


def _is_target(turn: Mapping[str, Any], keys: Sequence[str], role: Role) -> bool:
    """Return whether a turn is trained on; all of its marks have to agree."""
    marks = {key: _flag(turn[key], key) for key in keys if turn[key] != ""}
    if len(set(marks.values())) > 1:
        raise RowError(f"weights contradict each other: {', '.join(f'{key}={turn[key]}' for key in marks)}")
    target = next(iter(marks.values()), True)
    if marks and target and role != "assistant":
        key = next(iter(marks))
        raise RowError(f"weight of a {role} turn: {key}={turn[key]}, but only assistant turns are trained on")
    return target


def _flag(value: Any, key: str) -> bool:
    said = str(value).strip().lower()  # tables write numbers and truth as text
    if said in ("0", "0.0", "false", "1", "1.0", "true"):
        return said in ("1", "1.0", "true")
    raise RowError(f"unknown weight: {key}={value!r}; a turn is trained on or not, 1 or 0")
