"""What the columns of a row say about its mode."""

from collections.abc import Mapping
from typing import Any

from nemo_reasoning.data.schemas.columns import EMPTY
from nemo_reasoning.data.schemas.layouts import ColumnPlan, Layout
from nemo_reasoning.data.schemas.tools import decoded
from nemo_reasoning.data.schemas.turns import Unread
from nemo_reasoning.errors import RowError, SwitchError
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.switch import TEMPLATE_ARGUMENTS, stated_mode, template_switches


def read_mode(value: Mapping[str, Any], plan: ColumnPlan, unread: Unread) -> frozenset[Mode]:
    """Return what columns such as `reasoning` and `chat_template_kwargs` say about the mode."""
    stated: set[Mode] = set()
    for name in plan.traces:
        if (mode := stated_mode(value[name])) is not None:
            stated.add(mode)
        elif not _is_trace(value[name], plan.layout):
            raise RowError(f"unknown reasoning: {name}={value[name]!r} is neither on nor off, nor a trace")
    if (flag := value.get("enable_thinking")) not in EMPTY:
        if (mode := stated_mode(flag)) is None:
            raise RowError(f"unknown reasoning: enable_thinking={flag!r} is neither on nor off")
        stated.add(mode)
    arguments = value.get("chat_template_kwargs")
    if arguments not in EMPTY:
        stated |= _template_modes(arguments, unread)
    return frozenset(stated)


def _template_modes(arguments: Any, unread: Unread) -> set[Mode]:
    """Return what the keyword arguments of a chat template say about the mode."""
    if isinstance(arguments, str):
        arguments = decoded(arguments, "chat_template_kwargs")
    if not isinstance(arguments, Mapping):
        raise RowError(f"wrong type: chat_template_kwargs is a {type(arguments).__name__}")
    for name, entry in arguments.items():
        if name not in TEMPLATE_ARGUMENTS:
            unread.add(name, entry, column="chat_template_kwargs")
    try:
        return {switch.mode for switch in template_switches(arguments)}
    except SwitchError as error:
        raise RowError(f"unknown reasoning: {error}") from error


def _is_trace(told: Any, layout: Layout) -> bool:
    """Tell whether a column holds a trace: beside turns it has to be more than a word."""
    if not isinstance(told, str):
        return isinstance(told, list | dict)
    return not told.strip() or " " in told.strip() or not (layout.turns or layout.name == "llama_nemotron")
