"""A chat in the terminal: thinking dimmed, tokens counted, modes switched by commands."""

import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference.engine import Engine
from nemo_reasoning.inference.request import Completion, Delta, GenerationRequest
from nemo_reasoning.reasoning.messages import Message

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

Read = Callable[[str], str]
HELP = """/think          think before answering
/no_think       answer at once
/budget N       think at most N tokens; /budget off for no limit
/new            forget what was said
/exit           leave (or Ctrl-D); Ctrl-C stops an answer
Alt-Enter breaks the line, the arrows edit it and bring back earlier ones, pasted paragraphs are one message."""


def line_reader(history: Path, *, console: Console) -> Read:
    """Return what reads a line at the keyboard: edited, with a history of earlier ones; input from a file is plain.

    Args:
        history: File that keeps what was typed, on this machine.
        console: Told if lines cannot be edited.
    """
    if not sys.stdin.isatty():
        return input
    if importlib.util.find_spec("prompt_toolkit") is None:
        console.print("prompt_toolkit is not installed: lines cannot be edited, pasted ones are sent one by one")
        return input
    history.parent.mkdir(parents=True, exist_ok=True)
    return prompt_session(history).prompt


def prompt_session(history: Path, **options: Any) -> "PromptSession[str]":
    """Return a prompt with line editing and a history; `options` are those of prompt_toolkit."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _break_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return PromptSession(history=FileHistory(str(history)), key_bindings=keys, **options)


def show_stream(engine: Engine, request: GenerationRequest, *, console: Console) -> Completion | None:
    """Print an answer as it is written, and what it took; None if Ctrl-C stopped it."""
    begun, last, completion = time.monotonic(), "", None
    stream = engine.stream(request)
    try:
        for event in stream:
            if isinstance(event, Completion):
                completion = event
            else:
                last = _show(event, last, console=console)
    except KeyboardInterrupt:
        stream.close()  # type: ignore[attr-defined]  # a generator, whose end cancels the request
        console.print("\nstopped", style="dim")
        return None
    console.print()
    if completion is not None:
        console.print(_footer(completion, time.monotonic() - begun), style="dim", markup=False)
    return completion


def _show(delta: Delta, last: str, *, console: Console) -> str:
    """Print a delta, and return which of the two spoke last."""
    if delta.reasoning:
        console.print(delta.reasoning, style="dim", end="", markup=False)
        last = "reasoning"
    if delta.answer:
        if last == "reasoning":
            console.print("\n")
        console.print(delta.answer, end="", markup=False)
        last = "answer"
    return last


def _footer(completion: Completion, seconds: float) -> str:
    tokens, thinking = completion.completion_tokens, completion.reasoning_tokens
    cut = ", cut at max_new_tokens" if completion.finish_reason == "length" else ""
    return f"{tokens} tokens, {thinking} of thinking, {seconds:.1f} s, {tokens / seconds:.0f} tokens/s{cut}"


class Chat:
    """A dialogue with somebody at the keyboard."""

    def __init__(self, engine: Engine, request: GenerationRequest, *, console: Console, read: Read = input) -> None:
        """Take the engine, how to ask it, where to print, and how to read a line after a prompt."""
        self._engine, self._request, self._console, self._read = engine, request, console, read
        self._turns: list[Message] = []

    def run(self) -> None:
        """Read and answer until the end of the input or /exit."""
        self._say(HELP)
        while True:
            try:
                line = self._read(f"\n[{self._state}] > ").strip()
            except (EOFError, KeyboardInterrupt):
                return
            if line == "/exit":
                return
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._answer(line)

    @property
    def _state(self) -> str:
        if self._request.mode == "off":
            return "no thinking"
        budget = self._request.thinking_budget
        return "thinking" if budget is None else f"thinking, {budget} tokens at most"

    def _say(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False)

    def _command(self, line: str) -> None:
        name, _, value = line.partition(" ")
        try:
            if name == "/think":
                self._request = replace(self._request, mode="on")
            elif name == "/no_think":
                self._request = replace(self._request, mode="off", thinking_budget=None, min_thinking=0)
            elif name == "/budget" and value.strip() == "off":
                self._request = replace(self._request, thinking_budget=None)
            elif name == "/budget" and value.strip().isdecimal() and len(value) < 10:
                self._request = replace(self._request, mode="on", thinking_budget=int(value))
            elif name == "/new":
                self._turns.clear()
            else:
                self._say(HELP)
        except EngineError as error:
            self._say(str(error))

    def _answer(self, line: str) -> None:
        turns = [*self._turns, Message("user", line)]
        try:
            completion = show_stream(self._engine, replace(self._request, messages=tuple(turns)), console=self._console)
        except EngineError as error:
            self._say(f"{error}; /new forgets what was said")
            return
        if completion is not None:
            self._turns = [*turns, Message("assistant", completion.answer)]
