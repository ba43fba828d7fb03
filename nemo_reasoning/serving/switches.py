"""Every way to switch and bound the thinking, as one mode and one budget."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar

from nemo_reasoning.data.schema import THINK_SYSTEM, Message, Mode, Role
from nemo_reasoning.errors import RequestError
from nemo_reasoning.serving.schema import ChatMessage, ChatRequest

Value = TypeVar("Value")
_SLASH = re.compile(r"^\s*/(no_think|think)(?!\S)|(?<!\S)/(no_think|think)\s*$")  # first or last word of a turn
_MODES: dict[bool, Mode] = {True: "on", False: "off"}


class Thinking(NamedTuple):
    """What a request asks of the thinking.

    Attributes:
        mode: None if it asks for nothing.
        budget: Most tokens; None for no limit.
        least: Fewest tokens.
    """

    mode: Mode | None
    budget: int | None
    least: int


class _Wish(NamedTuple):
    field: str
    value: object
    mode: Mode | None = None
    budget: int | None = None


def thinking_of(request: ChatRequest, *, efforts: Mapping[str, int]) -> Thinking:
    """Return the thinking a request asks for in whatever vendor's words.

    A budget above zero, an effort or a minimum asks for thinking; a budget of zero asks for none, unless
    something else asks for it, which then begins and ends at once.

    Args:
        request: The request.
        efforts: Budget in tokens of each effort.

    Raises:
        RequestError: Two wishes contradict each other.
    """
    wishes = [*_switches(request), *_budgets(request, efforts)]
    mode = _agreed({wish.mode: wish for wish in wishes if wish.mode is not None})
    budget = _agreed({wish.budget: wish for wish in wishes if wish.budget is not None})
    least = request.min_thinking_tokens or 0
    wanted = [wish for wish in wishes if wish.budget] + [_Wish("min_thinking_tokens", least)] * bool(least)
    if mode == "off" and wanted:
        switch = next(wish for wish in wishes if wish.mode == "off")
        raise RequestError(
            f"{_said(switch)} turns thinking off, but {_said(wanted[0])} asks for some; remove one of the two",
            param=wanted[0].field,
        )
    if budget is not None and least > budget:
        raise RequestError(f"min_thinking_tokens={least} exceeds the budget of {budget}", param="min_thinking_tokens")
    if mode is None and (wanted or budget == 0):
        mode = _MODES[bool(wanted)]
    return Thinking(mode, budget, least)


def _said(wish: _Wish) -> str:
    return f"{wish.field}={wish.value}"


def _agreed(wishes: Mapping[Value, _Wish]) -> Value | None:
    """Return the one value that is wished for; None without any."""
    if len(wishes) > 1:
        first, second, *_ = wishes.values()
        raise RequestError(f"{_said(first)} contradicts {_said(second)}; remove one of the two", param=second.field)
    return next(iter(wishes), None)


def _switches(request: ChatRequest) -> Iterator[_Wish]:
    heads = [message for message in request.messages if message.role in ("system", "developer")]
    for message in [*heads, request.messages[-1]]:
        for word, mode in _words(message):
            yield _Wish("messages", repr(word), mode)
    options = request.chat_template_kwargs
    for name in ("enable_thinking", "thinking"):
        value = getattr(options, name, None)
        if value is not None:
            yield _Wish(f"chat_template_kwargs.{name}", str(value).lower(), _MODES[value])
    if request.thinking is not None:
        kind = request.thinking.type
        yield _Wish("thinking.type", kind, _MODES[kind == "enabled"])
    if request.reasoning_effort == "none":
        yield _Wish("reasoning_effort", "none", "off")


def _budgets(request: ChatRequest, efforts: Mapping[str, int]) -> Iterator[_Wish]:
    given = {
        "reasoning_budget": request.reasoning_budget,
        "thinking_token_budget": request.thinking_token_budget,
        "nvext.max_thinking_tokens": request.nvext.max_thinking_tokens if request.nvext else None,
        "thinking.budget_tokens": request.thinking.budget_tokens if request.thinking else None,
    }
    for field, budget in given.items():
        if budget is not None:
            yield _Wish(field, budget, budget=budget)
    effort = request.reasoning_effort
    if effort is not None and effort != "none":
        yield _Wish("reasoning_effort", effort, budget=efforts[effort])


def _words(message: ChatMessage) -> list[tuple[str, Mode]]:
    """Return the switches a message holds in its text: the system's first line, and /think or /no_think."""
    found = [(word := match[0].strip(), _MODES[word == "/think"]) for match in _SLASH.finditer(message.text)]
    if message.role != "user":
        found += [(switch, mode) for mode, switch in THINK_SYSTEM.items() if message.text.startswith(switch)]
    return found


def plain_messages(request: ChatRequest) -> tuple[Message, ...]:
    """Return the dialogue without switches: the engine puts the one of the mode into the system turn."""
    roles: dict[str, Role] = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}
    turns = [Message(roles[message.role], _without_switch(message)) for message in request.messages]
    return tuple(turn for turn in turns if turn.role != "system" or turn.content)


def _without_switch(message: ChatMessage) -> str:
    text = message.text
    if message.role == "assistant":
        return text
    if message.role != "user":
        for switch in THINK_SYSTEM.values():
            text = text.removeprefix(switch)
    bare = _SLASH.sub("", text)
    return message.text if bare == message.text else bare.strip()
