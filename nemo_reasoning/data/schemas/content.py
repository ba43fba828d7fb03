"""What a turn says: text, or parts of text and thinking, and the trace that stands apart from it."""

from dataclasses import replace
from typing import Any, cast

from nemo_reasoning.errors import RowError
from nemo_reasoning.reasoning.messages import Message, Role
from nemo_reasoning.reasoning.tags import with_thinking
from nemo_reasoning.reasoning.trace import TraceError, bare_trace, is_blank, split_trace

_TRACE_PARTS = ("thinking", "reasoning")
_PART_KEYS = frozenset({"type", "text", "id", "index", "signature", "cache_control", "annotations"})


def read_parts(content: Any, role: Role) -> tuple[str, str]:
    """Return the text and the trace of content that may be a list of parts."""
    if isinstance(content, str):
        return checked_text(content, role), ""
    if not isinstance(content, list):
        raise RowError(f"wrong type: content of the {role} turn is a {type(content).__name__}")
    texts, traces = [], []
    for part in content:
        if isinstance(part, dict) and None in part.values():
            part = {key: entry for key, entry in part.items() if entry is not None}
        if not isinstance(part, str | dict):
            raise RowError(f"wrong type: a part of the {role} turn is a {type(part).__name__}")
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if not isinstance(kind, str):
            raise RowError(f"wrong type: the type of a part of the {role} turn is a {type(kind).__name__}")
        if isinstance(part, dict) and (more := [key for key in part if key not in _PART_KEYS | {kind}]):
            raise RowError(f"unsupported part: the {role} turn holds {kind} with {more[0]}, which is not read")
        said = part if isinstance(part, str) else part.get(kind, part.get("text")) if isinstance(part, dict) else None
        if kind in _TRACE_PARTS:
            traces.append(read_parts(said, role)[0])
        elif kind in ("text", "input_text", "output_text"):
            texts.append(checked_text(part.get("text") if isinstance(part, dict) else said, role))
        else:
            raise RowError(f"unsupported part: the {role} turn holds {kind}, and text is all that can be trained on")
    return "".join(texts), "".join(traces)


def one_trace(before: str, trace: str, role: Role) -> str:
    """Return the trace of a turn that may state it twice.

    Raises:
        RowError: There are two, or the turn is no assistant's.
    """
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
        bare, rest = bare_trace(trace)
        own, text = split_trace(answer)
        if rest and rest != text:
            raise RowError(f"malformed thinking: {rest[:40]!r} after the end of the trace in {column}")
        thinking = with_thinking(bare, text)
        found = split_trace(thinking)
    except TraceError as error:
        raise RowError(f"malformed thinking: {error} beside the trace in {column}") from error
    if found[0] != bare:
        raise RowError(f"malformed thinking: a closing tag within the trace in {column}")
    if own is not None and not is_blank(own) and own != found[0]:
        raise RowError(f"two traces: one in {column} and another in the answer: {own[:40]!r}")
    return thinking


def checked_text(value: Any, role: str, *, what: str = "content") -> str:
    """Return a text that can be written as UTF-8.

    Raises:
        RowError: It is something else.
    """
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
    return Message(cast(Role, role), checked_text(value, role))


def attach_trace(messages: list[Message], trace: str, column: str) -> None:
    """Put a trace that stands in a column of the row before the last answer.

    Raises:
        RowError: The answer has a trace of its own.
    """
    last = messages[-1]
    if last.role != "assistant":
        raise RowError(
            f"no final assistant turn: the trace in {column} belongs to none; if a column holds the answer, name all "
            f"three: data.columns.question, data.columns.answer and data.columns.trace={column}"
        )
    messages[-1] = replace(last, content=content_with(trace, last.content, column=column))
