"""Understand a row of chats, in any of the schemas in use.

Accepted are `messages` rows, both generations of the Llama-Nemotron post-training rows (`input` as a
list of turns with `output` and `reasoning`, or as one Llama-3-templated string), and rows of `prompt`,
`reasoning` or `thinking`, and `response` or `answer`.
"""

import json
from typing import Any, cast

from nemo_reasoning.data.schemas.dialogue import Row, settle
from nemo_reasoning.errors import RowError
from nemo_reasoning.reasoning.messages import Message, Mode, Role
from nemo_reasoning.reasoning.tags import THINK_CLOSE, THINK_OPEN, with_thinking

_BEGIN, _END_OF_TURN = "<|begin_of_text|>", "<|eot_id|>"
_HEADER, _HEADER_END = "<|start_header_id|>", "<|end_header_id|>"


def decode_row(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line.

    Raises:
        RowError: "reason: detail" of why there is none.
    """
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RowError(f"not UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:  # besides bad JSON: endless digits, endless nesting
        raise RowError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RowError(f"not an object: {type(value).__name__}")
    return value


def parse_row(value: Any, *, origin: str) -> Row:
    """Return the row a JSON value describes, its thinking normalised and its switch in the system turn.

    Args:
        value: What JSON decoding gave.
        origin: "file:line", for messages to people.

    Raises:
        RowError: "reason: detail" of what makes it unusable.
    """
    if not isinstance(value, dict):
        raise RowError(f"not an object: {type(value).__name__}")
    return make_row(value, read_turns(value), stated=stated_mode(value), origin=origin)


def make_row(value: dict[str, Any], turns: list[Message], *, stated: frozenset[Mode], origin: str) -> Row:
    """Return the row made of turns, with the rest of what `value` says about it.

    Raises:
        RowError: "reason: detail" of what makes the dialogue unusable.
    """
    messages, mode = settle(turns, stated=stated)
    return Row(messages, mode, category=_text(value, "category"), license=_text(value, "license"), origin=origin)


def _text(value: dict[str, Any], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""


def stated_mode(value: dict[str, Any]) -> frozenset[Mode]:
    """Return what the `reasoning` column says about the mode, if that is what it holds.

    Raises:
        RowError: It names no mode.
    """
    stated = value.get("reasoning")
    if stated is None or ("prompt" in value and stated not in ("on", "off")):
        return frozenset()
    if stated not in ("on", "off"):
        raise RowError(f"unknown reasoning: {stated!r} is neither 'on' nor 'off'")
    return frozenset([cast(Mode, stated)])


def read_turns(value: dict[str, Any]) -> list[Message]:
    """Return all turns of a row, at least one, with the `system_prompt` column above the system turn it may have.

    Raises:
        RowError: The row has none of the known schemas, or a value of the wrong type.
    """
    turns = _listed(value["messages"], "messages") if "messages" in value else _answered(value)
    system = value.get("system_prompt")
    if system is not None:
        own = turns.pop(0).content if turns[0].role == "system" else ""
        switch = _message("system", system).content.strip()
        turns.insert(0, Message("system", f"{switch}\n\n{own}".strip()))
    return turns


def _answered(value: dict[str, Any]) -> list[Message]:
    if "prompt" in value and ("response" in value or "answer" in value):
        return _columns(value)
    if "input" not in value or "output" not in value:
        wanted = "messages, input and output, or prompt and response"
        raise RowError(f"missing keys: found {sorted(value)}, wanted {wanted}")
    given = value["input"]
    turns = _templated(given) if isinstance(given, str) else _listed(given, "input")
    answer = _message("assistant", value["output"])
    return [*turns, Message("assistant", answer.content.strip().removesuffix(_END_OF_TURN))]


def _columns(value: dict[str, Any]) -> list[Message]:
    """Return the turns of a row with one column for the question, the trace and the answer each."""
    answer = _message("assistant", value["response"] if "response" in value else value["answer"])
    trace = value["thinking"] if "thinking" in value else value.get("reasoning")
    if trace not in (None, "", "on", "off"):
        thinking = _message("assistant", trace).content.strip().removeprefix(THINK_OPEN).removesuffix(THINK_CLOSE)
        answer = Message("assistant", with_thinking(thinking, answer.content))
    return [_message("user", value["prompt"]), answer]


def _templated(text: str) -> list[Message]:
    """Return the turns of a Llama-3-templated prompt; text without a header is one user turn."""
    before, *pieces = text.strip().removeprefix(_BEGIN).split(_HEADER)
    if not pieces:
        return [_message("user", before)]
    turns = []
    for piece in pieces:
        role, header_end, rest = piece.partition(_HEADER_END)
        content, _, after = rest.partition(_END_OF_TURN)
        if before.strip() or after.strip() or not header_end:
            raise RowError(f"malformed template: {text[:60]!r}")
        turns.append(_message(role.strip(), content.strip()))
    if turns[-1] == Message("assistant", ""):  # the open header that `output` answers
        turns.pop()
    return turns


def _listed(value: Any, key: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise RowError(f"wrong type: {key} is not a list of turns")
    messages = []
    for turn in value:
        if not isinstance(turn, dict):
            raise RowError(f"wrong type: a turn of {key} is a {type(turn).__name__}")
        messages.append(_message(turn.get("role"), turn.get("content")))
    return messages


def _message(role: Any, content: Any) -> Message:
    if role not in ("system", "user", "assistant"):
        raise RowError(f"unknown role: {role!r}")
    if not isinstance(content, str):
        raise RowError(f"wrong type: content of the {role} turn is a {type(content).__name__}")
    try:
        content.encode()
    except UnicodeEncodeError as error:  # JSON can escape half a surrogate pair
        raise RowError(f"not Unicode: {error.reason} in the {role} turn") from error
    if role != "assistant" and (THINK_OPEN in content or THINK_CLOSE in content):
        raise RowError(f"think tag in a {role} turn: {content[:60]!r}")
    return Message(cast(Role, role), content)
