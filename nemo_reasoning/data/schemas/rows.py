"""From a line of a file to a dialogue to train on: columns, turns, trace and switch."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from nemo_reasoning.data.schemas.columns import EMPTY
from nemo_reasoning.data.schemas.content import attach_trace, text_message
from nemo_reasoning.data.schemas.dialogue import Row, settle
from nemo_reasoning.data.schemas.layouts import ColumnPlan, Layout, only, plan_columns
from nemo_reasoning.data.schemas.modes import read_mode
from nemo_reasoning.data.schemas.tools import decoded, read_tools
from nemo_reasoning.data.schemas.turns import Unread, read_turns, turns_in_text
from nemo_reasoning.data.schemas.verdicts import choose_answer, right_answer
from nemo_reasoning.errors import RowError
from nemo_reasoning.reasoning.messages import Message, Mode, Role
from nemo_reasoning.reasoning.switch import stated_mode
from nemo_reasoning.reasoning.trace import is_blank

_BEGIN, _END_OF_TURN = "<|begin_of_text|>", "<|eot_id|>"
_HEADER, _HEADER_END = "<|start_header_id|>", "<|end_header_id|>"
_PLACEHOLDERS = ("-", "N/A", "n/a", "None", "null")


@dataclass(slots=True)
class Draft:
    """A row whose columns were read.

    Attributes:
        turns: The dialogue, in any order of roles.
        stated: What the row says about its mode outside of its turns.
        tools: Definitions of tools.
        unused: Answers beside the one that was chosen.
        unread: Columns, and keys of turns, that nobody knows.
    """

    turns: list[Message]
    stated: frozenset[Mode]
    tools: tuple[Any, ...] = ()
    unused: int = 0
    unread: Unread = field(default_factory=Unread)


def decode_row(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line.

    Raises:
        RowError: "reason: detail" of why there is none.
    """
    try:
        value = from_json(line, allow_inf_nan=False, cache_strings="keys")  # in half the time
    except ValueError:
        value = _decoded_leniently(line)
    if not isinstance(value, dict):
        raise RowError(f"not an object: {type(value).__name__}")
    return value


def _decoded_leniently(line: bytes) -> Any:
    """Return the JSON value of a line as Python reads it: with NaN, a byte order mark or half a surrogate pair."""
    try:
        return json.loads(line.decode("utf-8-sig"), parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise RowError(f"not UTF-8: {error}") from error
    except RecursionError as error:
        raise RowError("not JSON: nested too deeply") from error
    except ValueError as error:  # besides bad JSON: endless digits
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            rest = error.doc[error.pos : error.pos + 20]
            told = f"{rest!r} follows the row in its line; write each row on a line of its own, without commas between"
            raise RowError(f"not JSON: {told}") from error
        raise RowError(f"not JSON: {error}") from error


def _constant(name: str) -> float | None:
    """Return what JSON does not know: NaN is how tables write that a value is absent."""
    return None if name == "NaN" else float(name)


def parse_row(
    value: Any, *, origin: str, mapping: Layout | None = None, review: Callable[[Draft], Draft] | None = None
) -> Row:
    """Return the row a JSON value describes, its thinking in the one format and its switch in the system turn.

    Args:
        value: What JSON decoding gave.
        origin: "file:byte", for messages to people.
        mapping: The layout that the settings declare; None to find it.
        review: Called with what the columns hold; returns what is to become of it, or raises.

    Raises:
        RowError: "reason: detail" of what makes it unusable.
    """
    try:
        draft = read_draft(value, mapping=mapping)
    except RecursionError as error:
        raise RowError("nested too deeply: a column holds hundreds of values within one another") from error
    if review is not None:
        draft = review(draft)
    messages, mode = settle(draft.turns, stated=draft.stated, tools=draft.tools)
    if mode == "off" and draft.unread.traces and not draft.stated:
        column = min(draft.unread.traces)
        raise RowError(
            f"column {column}: it may hold the trace of an answer that has none; name it with data.columns.trace="
            f"{column.rpartition('.')[2]}, or leave it out: data.columns.ignore=[{column}]"
        )
    texts = (value.get(key) for key in ("category", "license"))
    category, license = (text if isinstance(text, str) else "" for text in texts)
    return Row(messages, mode, category, license, origin, unused=draft.unused, unknown=frozenset(draft.unread.unknown))


def read_draft(value: Any, *, mapping: Layout | None = None) -> Draft:
    """Read the columns of a row.

    Raises:
        RowError: No layout fits, or a column holds something else than it should.
    """
    if not isinstance(value, dict):
        raise RowError(f"not an object: {type(value).__name__}")
    if None in value.values() or (mapping is not None and mapping.ignored):
        ignored = frozenset() if mapping is None else mapping.ignored
        value = {key: entry for key, entry in value.items() if entry is not None and key not in ignored}
    plan = _plan(value, mapping)
    if plan.renames:
        value = {plan.renames.get(key, key): entry for key, entry in value.items()}
    for name, why in plan.refused.items():
        if value[name] not in EMPTY and value[name] != 1:  # a weight of 1 changes nothing
            raise RowError(f"column {name}: {why}, or leave it out: data.columns.ignore=[{name}]")
    _check_metadata(value)
    draft = Draft([], frozenset())
    for name in plan.unknown:
        draft.unread.add(name, value[name])
    draft.stated = read_mode(value, plan, draft.unread)
    draft.tools = read_tools(value.get("tools"))
    _read_turns(value, plan.layout, draft)
    _read_trace(value, plan.layout, draft)
    _read_system(value, plan.layout, draft)
    _check_question(draft)
    return draft


def _plan(value: Mapping[str, Any], mapping: Layout | None) -> ColumnPlan:
    """Return what becomes of a row's columns; where several layouts fit, empty columns count as absent."""
    try:
        return plan_columns(tuple(value), mapping)
    except RowError:
        filled = tuple(name for name, entry in value.items() if entry not in EMPTY)
        if len(filled) == len(value):
            raise
        return plan_columns(filled, mapping)


def _check_question(draft: Draft) -> None:
    asked = next((turn.content.strip() for turn in draft.turns if turn.role == "user"), None)
    if asked in _PLACEHOLDERS:
        raise RowError(f"placeholder question: {asked!r}; the prompt has to be filled in first")


def layout_of(value: Mapping[str, Any], *, mapping: Layout | None = None) -> str:
    """Return the layout of a row with the columns it is read from, such as "sharegpt: conversations".

    Raises:
        RowError: No layout fits, or several do.
    """
    columns = tuple(name for name, entry in value.items() if entry is not None)
    layout = plan_columns(columns, mapping).layout
    parts = layout.turns or (*layout.question, *layout.answer, *layout.reference)
    return f"{layout.name}: {', '.join(name for name in parts if name in columns)}"


def _check_metadata(value: Mapping[str, Any]) -> None:
    told = value.get("metadata")
    if isinstance(told, str | dict) and "train_turns" in told:
        try:
            told = decoded(told, "metadata") if isinstance(told, str) else told
        except RowError:
            return  # prose that mentions the key
        if isinstance(told, dict) and told.get("train_turns") not in EMPTY:
            raise RowError("column metadata.train_turns: mark turns with weight, train or loss_mask instead")


def _read_turns(value: Mapping[str, Any], layout: Layout, draft: Draft) -> None:
    if layout.turns:
        said_in = next(name for name in layout.turns if name in value)
        right_answer(None, value)
        draft.turns = read_turns(value[said_in], said_in, layout.turn, draft.unread)
        return
    asked_in = next(name for name in layout.question if name in value)
    draft.turns = _history(value, layout) + _said(value[asked_in], asked_in, "user", layout, draft)
    if (context := _first(value, layout.context)) is not None:
        asked = draft.turns[-1]
        draft.turns[-1] = Message("user", f"{asked.content}\n\n{text_message('user', context).content}".strip())
    column: str | None = only(value, layout.answer, "answer")
    if column is None or value[column] in ("", []):
        column = only(value, layout.reference[:1], "answer") or only(value, layout.reference, "answer") or column
    if column is None:
        raise RowError(f"empty answer: none of {', '.join(layout.answer + layout.reference)} says anything")
    draft.turns += _said(_answer(value, column, draft), column, "assistant", layout, draft)


def _first(value: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((value[name] for name in names if value.get(name) not in EMPTY), None)


def _history(value: Mapping[str, Any], layout: Layout) -> list[Message]:
    """Return earlier turns, which Alpaca's layout keeps as pairs."""
    turns = []
    history = _first(value, layout.history) or ()
    pairs = decoded(history, "history") if isinstance(history, str) else history
    if not isinstance(pairs, list | tuple):
        raise RowError(f"wrong type: history is a {type(pairs).__name__} instead of pairs of question and answer")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RowError(f"wrong type: history holds {str(pair)[:40]!r} instead of pairs")
        turns += [text_message("user", pair[0]), text_message("assistant", pair[1])]
    return turns


def _said(value: Any, column: str, role: Role, layout: Layout, draft: Draft) -> list[Message]:
    """Return the turns in a column of text, of turns, or of Llama-3-templated text."""
    if isinstance(value, list | dict):
        return read_turns(value, column, layout.turn, draft.unread)
    said = text_message(role, value)
    if (turns := turns_in_text(said.content)) is not None:
        return read_turns(turns, column, layout.turn, draft.unread)
    if layout.name != "llama_nemotron":
        return [said]
    if role == "assistant":
        return [Message(role, said.content.strip().removesuffix(_END_OF_TURN))]
    return _templated(said.content)


def _answer(value: Mapping[str, Any], column: str, draft: Draft) -> Any:
    """Return the answer of a column, of several one that is right."""
    answer = value[column]
    if isinstance(answer, str) and answer.startswith(('["', "['")) and column.endswith("s"):
        answer = decoded(answer, column)
    if not isinstance(answer, list) or not all(entry is None or isinstance(entry, str) for entry in answer):
        return right_answer(answer, value)
    chosen, draft.unused = choose_answer(answer, value)
    return chosen


def _templated(text: str) -> list[Message]:
    """Return the turns of a Llama-3-templated prompt; text without a header is one user turn."""
    before, *pieces = text.strip().removeprefix(_BEGIN).split(_HEADER)
    if not pieces:
        return [Message("user", before)]
    turns = []
    for piece in pieces:
        role, header_end, rest = piece.partition(_HEADER_END)
        content, _, after = rest.partition(_END_OF_TURN)
        if before.strip() or after.strip() or not header_end:
            raise RowError(f"malformed template: {text[:60]!r}")
        if role.strip() not in ("system", "user", "assistant"):
            raise RowError(f"unknown role: {role.strip()!r} in the template")
        turns.append(text_message(role.strip(), content.strip()))
    if turns[-1] == Message("assistant", ""):  # the open header that `output` answers
        turns.pop()
    return turns


def _read_trace(value: Mapping[str, Any], layout: Layout, draft: Draft) -> None:
    """Put the trace that a column of the row holds before the last answer."""
    names = tuple(name for name in layout.trace if name in value and stated_mode(value[name]) is None)
    column = only(value, names, "trace")
    if column is None or value[column] in EMPTY:
        return
    trace = value[column]
    if isinstance(trace, list) and len(trace) == 1:
        trace = trace[0]
    if not isinstance(trace, str):
        raise RowError(f"wrong type: the trace in {column} is a {type(trace).__name__}")
    if not is_blank(trace):
        attach_trace(draft.turns, text_message("assistant", trace).content, column)


def _read_system(value: Mapping[str, Any], layout: Layout, draft: Draft) -> None:
    """Put the system columns above the system turn that the dialogue may have."""
    heads = [text_message("system", value[name]).content.strip() for name in layout.system if name in value]
    while draft.turns and draft.turns[0].role == "system":
        heads.append(draft.turns.pop(0).content)
    if not heads:
        return
    said = "\n\n".join(dict.fromkeys(head for head in heads if head))
    draft.turns.insert(0, Message("system", said if len(heads) == 1 else said.strip()))
