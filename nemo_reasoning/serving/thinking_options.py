"""Every way to switch and bound the thinking, as one mode and one budget."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar, cast

from nemo_reasoning.errors import RequestError
from nemo_reasoning.reasoning.messages import Message, Mode, Role
from nemo_reasoning.reasoning.switch import take_switches, template_switches
from nemo_reasoning.reasoning.tags import THINK_OPEN, ThinkingParser, with_thinking
from nemo_reasoning.serving.messages import ChatMessage
from nemo_reasoning.serving.protocol import ChatRequest

Value = TypeVar("Value")
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
    for switch in take_switches(_turns(request))[1]:
        yield _Wish("messages", repr(switch.text), switch.mode)
    options = request.chat_template_kwargs
    for switch in template_switches(options.model_dump() if options else {}):
        field, _, value = switch.text.partition("=")
        yield _Wish(field, value, switch.mode)
    if request.thinking is not None:
        kind = request.thinking.type
        yield _Wish("thinking.type", kind, _MODES[kind == "enabled"])
    if request.reasoning_effort == "none":
        yield _Wish("reasoning_effort", "none", "off")
    if ThinkingParser(prefill(request)).thinking:
        yield _Wish("messages", "an assistant's turn to be continued within its thinking", "on")


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


def plain_messages(request: ChatRequest) -> tuple[Message, ...]:
    """Return the dialogue without switches: the engine puts the one of the mode into the system turn."""
    return take_switches(_turns(request))[0]


def prefill(request: ChatRequest) -> str:
    """Return what the assistant has said already, if the last message is to be continued."""
    last = request.messages[-1]
    if not request.continues:
        return ""
    trace = last.reasoning or last.reasoning_content
    if not trace:
        return last.text
    return with_thinking(trace, "") + last.text if last.text else f"{THINK_OPEN}\n{trace}"


def _turns(request: ChatRequest) -> list[Message]:
    """Return the dialogue, its leading system turns joined, without the turn that is to be continued."""
    given = request.messages[: -1 if request.continues else None]
    instructions = "\n\n".join(message.text for message in given if message.is_system)
    system = [Message("system", instructions)] if instructions else []
    return [*system, *(_turn(message) for message in given if not message.is_system)]


def _turn(message: ChatMessage) -> Message:
    return Message(
        cast(Role, message.role),
        message.text,
        tool_calls=tuple(call.for_template() for call in message.tool_calls),
        tool_call_id=message.tool_call_id,
        name=message.name if message.role == "tool" else None,
    )
