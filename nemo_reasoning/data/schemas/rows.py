"""From a line of a file to a dialogue to train on: columns, turns, trace and switch."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from nemo_reasoning.data.schemas.dialogue import Row, settle
from nemo_reasoning.data.schemas.layouts import REFUSED, Layout, only, plan_columns
from nemo_reasoning.data.schemas.turns import attach_trace, read_turns, text_message
from nemo_reasoning.errors import RowError, SwitchError
from nemo_reasoning.reasoning.messages import Message, Mode, Role
from nemo_reasoning.reasoning.switch import TEMPLATE_ARGUMENTS, template_switches
from nemo_reasoning.reasoning.trace import is_blank

_BEGIN, _END_OF_TURN = "<|begin_of_text|>", "<|eot_id|>"
_HEADER, _HEADER_END = "<|start_header_id|>", "<|end_header_id|>"
_EMPTY: tuple[Any, ...] = (None, "", [], {}, "[]", "{}")
_PLACEHOLDERS = ("-", "N/A", "n/a", "None", "null")


@dataclass(slots=True)
class Draft:
    """A row whose columns were read.

    Attributes:
        turns: The dialogue, in any order of roles.
        stated: What the row says about its mode outside of its turns.
        tools: Definitions of tools.
        unused: Answers beside the one that was chosen.
        unknown: Columns, and keys of turns as "column.key", that nobody knows.
    """

    turns: list[Message]
    stated: frozenset[Mode]
    tools: tuple[Any, ...] = ()
    unused: int = 0
    unknown: set[str] = field(default_factory=set)


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
    draft = read_draft(value, mapping=mapping)
    if review is not None:
        draft = review(draft)
    messages, mode = settle(draft.turns, stated=draft.stated, tools=draft.tools)
    texts = (value.get(key) for key in ("category", "license"))
    category, license = (text if isinstance(text, str) else "" for text in texts)
    return Row(messages, mode, category, license, origin, unused=draft.unused, unknown=frozenset(draft.unknown))


def read_draft(value: Any, *, mapping: Layout | None = None) -> Draft:
    """Read the columns of a row.

    Raises:
        RowError: No layout fits, or a column holds something else than it should.
    """
    if not isinstance(value, dict):
        raise RowError(f"not an object: {type(value).__name__}")
    if None in value.values():
        value = {key: entry for key, entry in value.items() if entry is not None}
    plan = plan_columns(tuple(value), mapping)
    for name in plan.refused:
        if value[name] not in _EMPTY:
            raise RowError(f"column {name}: {REFUSED[name]}")
    _check_metadata(value)
    draft = Draft([], _stated_mode(value, plan.layout))
    draft.unknown.update(name for name in plan.unknown if value[name] not in _EMPTY)
    draft.tools = _tools(value)
    _read_turns(value, plan.layout, draft)
    _read_trace(value, plan.layout, draft)
    _read_system(value, plan.layout, draft)
    return draft


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
        told = _decoded(told) if isinstance(told, str) else told
        if isinstance(told, dict) and told.get("train_turns") not in _EMPTY:
            raise RowError("column metadata.train_turns: mark turns with weight, train or loss_mask instead")


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None  # prose that mentions the key


def _stated_mode(value: Mapping[str, Any], layout: Layout) -> frozenset[Mode]:
    """Return what the columns `reasoning` and `chat_template_kwargs` say about the mode."""
    stated: set[Mode] = set()
    told = value.get("reasoning")
    if isinstance(told, bool):
        told = "on" if told else "off"
    if isinstance(told, str) and told.strip().lower() in ("on", "off"):
        stated.add(cast(Mode, told.strip().lower()))
    elif told is not None and not _is_trace(told, layout):
        raise RowError(f"unknown reasoning: {told!r} is neither 'on' nor 'off'")
    arguments = value.get("chat_template_kwargs") or {}
    if not isinstance(arguments, Mapping):
        raise RowError(f"wrong type: chat_template_kwargs is a {type(arguments).__name__}")
    flags = {name: value[name] for name in TEMPLATE_ARGUMENTS if isinstance(value.get(name), bool)}
    if arguments or flags:
        try:
            stated |= {switch.mode for given in (arguments, flags) for switch in template_switches(given)}
        except SwitchError as error:
            raise RowError(f"unknown reasoning: {error}") from error
    return frozenset(stated)


def _is_trace(told: Any, layout: Layout) -> bool:
    """Tell whether the column `reasoning` holds a trace: beside turns it has to be more than a word."""
    if not isinstance(told, str):
        return isinstance(told, list)
    return not told.strip() or " " in told.strip() or not (layout.turns or layout.name == "llama_nemotron")


def _tools(value: Mapping[str, Any]) -> tuple[Any, ...]:
    tools = value.get("tools")
    if tools in _EMPTY:
        return ()
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise RowError(f"wrong type: tools is text that is not JSON ({error})") from error
    if not isinstance(tools, list):
        raise RowError(f"wrong type: tools is a {type(tools).__name__}")
    return tuple(tools)


def _read_turns(value: Mapping[str, Any], layout: Layout, draft: Draft) -> None:
    if layout.turns:
        said_in = next(name for name in layout.turns if name in value)
        draft.turns = read_turns(value[said_in], said_in, layout.turn, draft.unknown)
        return
    asked_in = next(name for name in layout.question if name in value)
    draft.turns = _history(value, layout) + _said(value[asked_in], asked_in, "user", layout, draft)
    if (context := _first(value, layout.context)) is not None:
        asked = draft.turns[-1]
        draft.turns[-1] = Message("user", f"{asked.content}\n\n{text_message('user', context).content}".strip())
    if len(draft.turns) == 1 and draft.turns[0].content.strip() in _PLACEHOLDERS:
        raise RowError(f"placeholder question: {draft.turns[0].content!r}; the prompt has to be filled in first")
    column: str | None = only(value, layout.answer, "answer")
    if column is None or value[column] in ("", []):
        column = only(value, layout.reference[:1], "answer") or only(value, layout.reference, "answer") or column
    if column is None:
        raise RowError(f"empty answer: none of {', '.join(layout.answer + layout.reference)} says anything")
    draft.turns += _said(_chosen(value, column, layout, draft), column, "assistant", layout, draft)


def _first(value: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((value[name] for name in names if value.get(name) not in _EMPTY), None)


def _history(value: Mapping[str, Any], layout: Layout) -> list[Message]:
    """Return earlier turns, which Alpaca's layout keeps as pairs."""
    turns = []
    for pair in _first(value, layout.history) or ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RowError(f"wrong type: history holds {str(pair)[:40]!r} instead of pairs")
        turns += [text_message("user", pair[0]), text_message("assistant", pair[1])]
    return turns


def _said(value: Any, column: str, role: Role, layout: Layout, draft: Draft) -> list[Message]:
    """Return the turns in a column of text, of turns, or of Llama-3-templated text."""
    if isinstance(value, list | dict):
        return read_turns(value, column, layout.turn, draft.unknown)
    said = text_message(role, value)
    if layout.name != "llama_nemotron":
        return [said]
    if role == "assistant":
        return [Message(role, said.content.strip().removesuffix(_END_OF_TURN))]
    return _templated(said.content)


def _chosen(value: Mapping[str, Any], column: str, layout: Layout, draft: Draft) -> Any:
    """Return the answer of a column, of several the first that its verdicts call right.

    Raises:
        RowError: The verdicts call none right.
    """
    answers = value[column]
    verdicts = {name: value[name] for name in layout.verdicts if value.get(name) not in _EMPTY}
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        wrong = [name for name, verdict in verdicts.items() if verdict is False]
        if wrong:
            raise RowError(f"no right answer: {wrong[0]} is false")
        return answers
    judged = [verdict for verdict in verdicts.values() if isinstance(verdict, list) and len(verdict) == len(answers)]
    right = [place for place in range(len(answers)) if all(verdict[place] is not False for verdict in judged)]
    if not right:
        raise RowError(f"no right answer: {', '.join(verdicts)} call none of {len(answers)} right")
    draft.unused = len(answers) - 1
    return answers[right[0]]


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
    names = tuple(name for name in layout.trace if not _is_mode(value.get(name)))
    column = only(value, names, "trace")
    if column is None or value[column] in _EMPTY:
        return
    trace = value[column]
    if isinstance(trace, list) and len(trace) == 1:
        trace = trace[0]
    if not isinstance(trace, str):
        raise RowError(f"wrong type: the trace in {column} is a {type(trace).__name__}")
    if not is_blank(trace):
        attach_trace(draft.turns, text_message("assistant", trace).content, column)


def _is_mode(told: Any) -> bool:
    """Tell whether a column that may hold a trace names a mode instead."""
    return isinstance(told, bool) or (isinstance(told, str) and told.strip().lower() in ("on", "off"))


def _read_system(value: Mapping[str, Any], layout: Layout, draft: Draft) -> None:
    """Put the system columns above the system turn that the dialogue may have."""
    heads = [text_message("system", value[name]).content.strip() for name in layout.system if name in value]
    while draft.turns and draft.turns[0].role == "system":
        heads.append(draft.turns.pop(0).content)
    if not heads:
        return
    said = "\n\n".join(dict.fromkeys(head for head in heads if head))
    draft.turns.insert(0, Message("system", said if len(heads) == 1 else said.strip()))
