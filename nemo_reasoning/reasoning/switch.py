"""The thinking switch: its spellings, found in turns, and written into the system turn.

A switch is a whole line of a system turn, or a slash command that is the first or last word of a system or
user turn. Anything else that mentions thinking is text: "detailed thinking on hard problems is your job."
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any, NamedTuple

from jinja2 import Environment, TemplateSyntaxError, meta

from nemo_reasoning.errors import SwitchError
from nemo_reasoning.reasoning.messages import Message, Mode, Role

THINK_SYSTEM: dict[Mode, str] = {"on": "detailed thinking on", "off": "detailed thinking off"}
# Every spelling that is understood, in lower case. Lines are Llama-Nemotron's; commands are those of Nemotron
# Super v1.5, Nemotron Nano v2 and Qwen3, and GLM's.
LINES: dict[str, Mode] = {line: mode for mode, line in THINK_SYSTEM.items()}
COMMANDS: dict[str, Mode] = {"/think": "on", "/no_think": "off", "/nothink": "off"}
TEMPLATE_ARGUMENTS = ("enable_thinking", "thinking")  # of Qwen3's and DeepSeek's chat templates

_GENERATION = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")  # tags that only transformers knows
_LONGEST = max(map(len, COMMANDS))
_SHORT = 2000  # characters


class Switch(NamedTuple):
    """A switch as it was written.

    Attributes:
        text: Such as "/no_think" or "chat_template_kwargs.enable_thinking=False".
        mode: What it asks for.
    """

    text: str
    mode: Mode


class Found(NamedTuple):
    """A turn's text, divided.

    Attributes:
        rest: The text without its switches; unchanged if it has none.
        switches: In the order they were found.
    """

    rest: str
    switches: tuple[Switch, ...]


def find_switch(text: str, role: Role) -> Found:
    """Find the switches in what a turn says; an assistant's turn has none."""
    if role == "assistant" or not _may_switch(text, role):
        return Found(text, ())
    return (_found if len(text) > _SHORT else _found_before)(text, role)


def _found(text: str, role: Role) -> Found:
    rest, switches = text, list[Switch]()
    for _ in range(2):  # a command may have hidden a line
        if role == "system":
            rest, lines = _without_lines(rest)
            switches += lines
        rest, commands = _without_commands(rest)
        switches += commands
    return Found(rest if switches else text, tuple(switches))


_found_before = lru_cache(maxsize=256)(_found)  # most dialogues of a data set have the same system turn


def _may_switch(text: str, role: Role) -> bool:
    """Rule out most texts quickly."""
    return (role == "system" or "/" in text) and ("think" in text or "think" in text.casefold())


def _without_commands(text: str) -> tuple[str, list[Switch]]:
    """Return a text without white space around it and the commands at its ends, and these."""
    rest, switches = text.strip(), list[Switch]()
    start, end = 0, len(rest)
    while start < end:
        if first := _command(rest[start : min(end, start + _LONGEST + 1)].split(None, 1)):
            switches.append(first)
            start += len(first.text)
        elif last := _command(rest[max(start, end - _LONGEST - 1) : end].rsplit(None, 1)[::-1]):
            switches.append(last)
            end -= len(last.text)
        else:
            break
        while start < end and rest[start].isspace():
            start += 1
        while start < end and rest[end - 1].isspace():
            end -= 1
    return rest[start:end], switches


def _command(words: Sequence[str]) -> Switch | None:
    """Return the command that the first of some words is."""
    mode = COMMANDS.get(words[0].lower()) if words else None
    return None if mode is None else Switch(words[0], mode)


def _without_lines(text: str) -> tuple[str, list[Switch]]:
    switches, kept = [], []
    for line in text.split("\n"):
        said = " ".join(line.split())
        mode = LINES.get(said.casefold().removesuffix(".").rstrip())
        if mode is None:
            kept.append(line)
        else:
            switches.append(Switch(said, mode))
    return "\n".join(kept), switches


_STATED: dict[str, Mode] = {
    **dict.fromkeys(("on", "true", "yes", "enabled", "1"), "on"),
    **dict.fromkeys(("off", "false", "no", "disabled", "0"), "off"),
}


def stated_mode(value: Any) -> Mode | None:
    """Return the mode that a column of a row names, as true, 1 or "on"; None if it names none."""
    if isinstance(value, bool | int | str):
        return _STATED.get(str(value).strip().lower())
    return None


def template_switches(arguments: Mapping[str, Any]) -> tuple[Switch, ...]:
    """Return the switches among keyword arguments of a chat template; what is absent or null says nothing.

    Raises:
        SwitchError: One of them is neither true nor false.
    """
    switches = []
    for name in TEMPLATE_ARGUMENTS:
        value = arguments.get(name)
        if value is None:
            continue
        if not isinstance(value, bool):
            raise SwitchError(f"chat_template_kwargs.{name}={value!r}; give true or false")
        switches.append(Switch(f"chat_template_kwargs.{name}={str(value).lower()}", "on" if value else "off"))
    return tuple(switches)


@cache
def template_arguments(template: str) -> tuple[str, ...]:
    """Return which of `TEMPLATE_ARGUMENTS` a chat template takes: its own switch, that a dialogue need not write.

    Nothing of a template that cannot be read, which whoever renders it will say.
    """
    environment = Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=True)
    try:
        parsed = environment.parse(_GENERATION.sub(r"{#\1 \2#}", template))
    except TemplateSyntaxError:
        return ()
    return tuple(sorted(meta.find_undeclared_variables(parsed) & set(TEMPLATE_ARGUMENTS)))


def for_template(messages: Sequence[Message], arguments: Sequence[str]) -> tuple[Sequence[Message], dict[str, bool]]:
    """Return a dialogue as a chat template with `arguments` of its own takes it, and their values.

    Its switches are taken out and say the values; without any the template decides. Without arguments the
    dialogue stays as it is.
    """
    if not arguments:
        return messages, {}
    plain, switches = take_switches(messages)
    mode = agreed_mode(switches)
    return plain, {} if mode is None else dict.fromkeys(arguments, mode == "on")


def agreed_mode(switches: Iterable[Switch]) -> Mode | None:
    """Return the one mode that switches ask for; None without any.

    Raises:
        SwitchError: Two of them contradict each other.
    """
    by_mode = {switch.mode: switch.text for switch in switches}
    if len(by_mode) > 1:
        raise SwitchError(f"{by_mode['on']!r} contradicts {by_mode['off']!r}; remove one of the two")
    return next(iter(by_mode), None)


def take_switches(messages: Sequence[Message]) -> tuple[tuple[Message, ...], tuple[Switch, ...]]:
    """Return a dialogue without its switches, and those that hold for its last answer.

    These are the switches of the system turn and of the last user turn; an earlier user's held for an earlier
    answer. A system turn of which nothing is left is removed.
    """
    last = max((place for place, message in enumerate(messages) if message.role == "user"), default=-1)
    plain, switches = list[Message](), list[Switch]()
    for place, message in enumerate(messages):
        found = find_switch(message.content, message.role)
        if message.role == "system" or place == last:
            switches += found.switches
        if found.rest or message.role != "system":
            plain.append(replace(message, content=found.rest) if found.switches else message)
    return tuple(plain), tuple(switches)


def system_prompt(mode: Mode, instructions: str = "") -> str:
    """Return the system turn of a mode, with a dialogue's own instructions after the switch."""
    return f"{THINK_SYSTEM[mode]}\n\n{instructions}" if instructions else THINK_SYSTEM[mode]


def without_switch(messages: Sequence[Message], mode: Mode) -> tuple[Message, ...]:
    """Return the dialogue without its switches, as a chat template with a switch of its own takes it.

    Raises:
        SwitchError: The dialogue asks for the other mode.
    """
    plain, switches = take_switches(messages)
    if (asked := agreed_mode(switches)) not in (None, mode):
        said = next(switch.text for switch in switches if switch.mode == asked)
        raise SwitchError(f"the dialogue says {said!r}, but mode={mode}; remove one of the two")
    return plain


def with_switch(messages: Sequence[Message], mode: Mode) -> tuple[Message, ...]:
    """Return the dialogue with one switch: at the head of its system turn, before the dialogue's own instructions.

    Raises:
        SwitchError: The dialogue asks for the other mode.
    """
    plain = without_switch(messages, mode)
    own = plain[0].content if plain and plain[0].role == "system" else ""
    return (Message("system", system_prompt(mode, own)), *plain[1 if own else 0 :])
