"""Read turns of a dialogue, however a data set writes them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

from nemo_reasoning.errors import RowError
from nemo_reasoning.reasoning.messages import Message, Role
from nemo_reasoning.reasoning.tags import with_thinking
from nemo_reasoning.reasoning.trace import TraceError, is_blank, split_trace

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
ROLE_KEYS, CONTENT_KEYS = ("role", "from"), ("content", "value", "text")
TRACE_KEYS = ("reasoning_content", "reasoning", "thinking")
WEIGHT_KEYS = ("weight", "train", "loss_mask")
CALL_KEYS = ("tool_calls", "tool_call_id", "name")
_HARMLESS = frozenset({"id", "index", "timestamp", "model", "refusal", "annotations", "date", "lang", "language"})
_TRACE_PARTS = ("thinking", "reasoning")


@dataclass(frozen=True, slots=True)
class TurnKeys:
    """Names of what a turn holds; each is the first of some that the turn has.

    Attributes:
        role: Who speaks.
        content: What is said.
        weight: Whether it is trained on.
    """

    role: tuple[str, ...] = ROLE_KEYS
    content: tuple[str, ...] = CONTENT_KEYS
    weight: tuple[str, ...] = WEIGHT_KEYS


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which keys of a turn hold what; None where it has no such key."""

    role: str | None
    content: str | None
    traces: tuple[str, ...]
    weights: tuple[str, ...]
    calls: bool
    unknown: tuple[str, ...]


@lru_cache(maxsize=4096)
def _plan(keys: tuple[str, ...], names: TurnKeys) -> _Plan:
    present = frozenset(keys)
    role = next((key for key in names.role if key in present), None)
    content = next((key for key in names.content if key in present), None)
    traces = tuple(key for key in TRACE_KEYS if key in present)
    weights = tuple(key for key in names.weight if key in present)
    read = {role, content, *traces, *weights, *CALL_KEYS, *_HARMLESS}
    unknown = tuple(key for key in keys if key not in read)
    return _Plan(role, content, traces, weights, any(key in present for key in CALL_KEYS), unknown)


def read_turns(value: Any, column: str, names: TurnKeys, unknown: set[str]) -> list[Message]:
    """Return the turns in a column: a list, the JSON text of one, or a struct of lists as Parquet files have it.

    Args:
        value: What the column holds.
        column: Its name, for messages to people.
        names: Names of a turn's keys.
        unknown: Gets the keys of turns that are not read, as "column.key".

    Raises:
        RowError: It holds no turns, or one that cannot be read.
    """
    if isinstance(value, str):
        value = _decoded(value, column)
    if isinstance(value, Mapping):
        value = _transposed(value, column)
    if not isinstance(value, list) or not value:
        raise RowError(f"wrong type: {column} is not a list of turns")
    messages = []
    for turn in value:
        if not isinstance(turn, dict):
            raise RowError(f"wrong type: a turn of {column} is a {type(turn).__name__}")
        messages.append(_read_turn(turn, column, names, unknown))
    return messages


def _decoded(text: str, column: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RowError(f"wrong type: {column} is text that is not JSON ({error})") from error


def _transposed(value: Mapping[str, Any], column: str) -> list[dict[str, Any]]:
    """Return the turns of a struct of lists of equal length."""
    lists = {key: entry for key, entry in value.items() if isinstance(entry, list)}
    if not lists or len(lists) < sum(entry is not None for entry in value.values()):
        raise RowError(f"wrong type: {column} is not a list of turns")
    if len({len(entry) for entry in lists.values()}) > 1:
        raise RowError(f"wrong type: the lists in {column} differ in length")
    return [dict(zip(lists, turn, strict=True)) for turn in zip(*lists.values(), strict=True)]


def _read_turn(turn: dict[str, Any], column: str, names: TurnKeys, unknown: set[str]) -> Message:
    if None in turn.values():
        turn = {key: entry for key, entry in turn.items() if entry is not None}
    plan = _plan(tuple(turn), names)
    said = turn.get(plan.role) if plan.role else None
    role = ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        raise RowError(f"unknown role: {said!r} in {column}; roles are {', '.join(sorted(ROLES))}")
    content = turn.get(plan.content) if plan.content else ""
    for key in plan.unknown:
        if turn[key] not in ("", [], {}):
            unknown.add(f"{column}.{key}")
    if isinstance(content, str) and not (plan.traces or plan.weights or plan.calls):
        return Message(role, _text(content, role))
    return _full_turn(turn, plan, role, content, called=said == "function_call")


def _full_turn(turn: dict[str, Any], plan: _Plan, role: Role, content: Any, *, called: bool) -> Message:
    """Return a turn with parts, a trace of its own, a weight or tool calls."""
    text, trace = _parts(content, role)
    for key in plan.traces:
        if said := turn[key]:
            trace = _one_trace(trace, _text(said, role, what=key), role)
    calls = turn.get("tool_calls") or ()
    if called:
        text, calls = "", [_decoded(text, "function_call")]
    if not isinstance(calls, list | tuple):
        raise RowError(f"wrong type: tool_calls is a {type(calls).__name__}")
    target = _is_target(turn, plan.weights, role)
    message = Message(
        role,
        content_with(trace, text, column="the turn") if trace else text,
        target=target,
        excluded=not target and role == "assistant",
        tool_calls=tuple(map(_call, calls)),
        tool_call_id=_optional(turn, "tool_call_id") if role == "tool" else None,
        name=_optional(turn, "name") if role == "tool" else None,
    )
    if message.tool_calls and role != "assistant":
        raise RowError(f"tool calls of a {role} turn: only an assistant calls tools")
    return message


def _call(call: Any) -> dict[str, Any]:
    """Return a tool call in OpenAI's form, its arguments decoded, as chat templates read it."""
    if not isinstance(call, Mapping):
        raise RowError(f"wrong type: a tool call is a {type(call).__name__}")
    function = call.get("function", call)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RowError(f"wrong type: a tool call without a name: {str(call)[:60]}")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        arguments = _decoded(arguments, "arguments") if arguments.strip() else {}
    named = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {"type": "function", **named, "function": {"name": function["name"], "arguments": arguments}}


def _optional(turn: Mapping[str, Any], key: str) -> str | None:
    value = turn.get(key)
    return value if isinstance(value, str) and value else None


def _parts(content: Any, role: Role) -> tuple[str, str]:
    """Return the text and the trace of content that may be a list of parts."""
    if isinstance(content, str):
        return _text(content, role), ""
    if not isinstance(content, list):
        raise RowError(f"wrong type: content of the {role} turn is a {type(content).__name__}")
    texts, traces = [], []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        said = part if isinstance(part, str) else part.get(kind, part.get("text")) if isinstance(part, dict) else None
        if kind in _TRACE_PARTS:
            traces.append(_parts(said, role)[0])
        elif kind in ("text", "input_text", "output_text"):
            texts.append(_text(part.get("text") if isinstance(part, dict) else said, role))
        else:
            raise RowError(f"unsupported part: the {role} turn holds {kind}, and text is all that can be trained on")
    return "".join(texts), "".join(traces)


def _one_trace(before: str, trace: str, role: Role) -> str:
    if role != "assistant" and not is_blank(trace):
        raise RowError(f"trace of a {role} turn: only assistants think")
    if before.strip() and trace.strip() and before.strip() != trace.strip():
        raise RowError(f"two traces: {before[:40]!r} and {trace[:40]!r} in one turn")
    return trace if trace.strip() else before


def content_with(trace: str, answer: str, *, column: str) -> str:
    """Return what an assistant says whose trace stands apart from the answer.

    Raises:
        RowError: The answer has a trace of its own, or the trace ends before its end.
    """
    if is_blank(trace):
        return answer
    try:
        bare, rest = split_trace(trace, thinks=True) if trace.lstrip()[:1] in "<[\u25c1" else (None, trace)
        own, text = split_trace(answer)
        thinking = with_thinking(rest if bare is None else f"{bare}\n{rest}".strip(), text)
        found = split_trace(thinking)
    except TraceError as error:
        raise RowError(f"malformed thinking: {error} beside the trace in {column}") from error
    if own is not None and not is_blank(own) and own != found[0]:
        raise RowError(f"two traces: one in {column} and another in the answer: {own[:40]!r}")
    return thinking


def _is_target(turn: Mapping[str, Any], keys: Sequence[str], role: Role) -> bool:
    """Return whether a turn is trained on; all of its marks have to agree."""
    marks = {key: _flag(turn[key], key) for key in keys}
    if len(set(marks.values())) > 1:
        raise RowError(f"weights contradict each other: {', '.join(f'{key}={turn[key]}' for key in marks)}")
    target = next(iter(marks.values()), True)
    if marks and target and role != "assistant":
        raise RowError(f"weight of a {role} turn: {keys[0]}={turn[keys[0]]}, but only assistant turns are trained on")
    return target


def _flag(value: Any, key: str) -> bool:
    if value in (0, 1):  # False and True, 0.0 and 1.0 are among them
        return bool(value)
    raise RowError(f"unknown weight: {key}={value!r}; a turn is trained on or not, 1 or 0")


def _text(value: Any, role: str, *, what: str = "content") -> str:
    if not isinstance(value, str):
        raise RowError(f"wrong type: {what} of the {role} turn is a {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON can escape half a surrogate pair
            raise RowError(f"not Unicode: {error.reason} in the {role} turn") from error
    return value


def text_message(role: str, value: Any) -> Message:
    """Return a turn that is plain text.

    Raises:
        RowError: It is none.
    """
    return Message(cast(Role, role), _text(value, role))


def attach_trace(messages: list[Message], trace: str, column: str) -> None:
    """Put a trace that stands in a column of the row before the last answer.

    Raises:
        RowError: The answer has a trace of its own.
    """
    last = messages[-1]
    if last.role != "assistant":
        raise RowError(f"no final assistant turn: the trace in {column} belongs to none")
    messages[-1] = replace(last, content=content_with(trace, last.content, column=column))
