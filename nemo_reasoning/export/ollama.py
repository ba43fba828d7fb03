"""A Modelfile: how Ollama serves a GGUF file with the prompts of the training.

Ollama has templates of its own, in Go's language, and does not read the one in the file. The text that the chat
template writes around turns is found by rendering, put into a Go template, and compared on other dialogues.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from nemo_reasoning.data.chat import ChatFormatter
from nemo_reasoning.errors import ExportError
from nemo_reasoning.reasoning.messages import Message, Mode
from nemo_reasoning.reasoning.switch import THINK_SYSTEM, system_prompt, template_arguments, with_switch
from nemo_reasoning.reasoning.tags import THINK_CLOSE, THINK_OPEN

MODELFILE = "Modelfile"
CONTEXT = 8192  # Ollama's own default would cut a long trace
_MODES: tuple[Mode, Mode] = ("on", "off")
_SYSTEM, _TURNS = "system-probe", ("first-probe", "second-probe", "third-probe")
_OTHERS = (("2 + 2?",), ("naïve café?", "素朴なカフェ", "why?\n\tx"), ("a", "b", "c", "d", "e"))


@dataclass(frozen=True)
class Around:
    """The text around the turns of a dialogue that ends with a question.

    Attributes:
        own_switch: Whether the template has a switch of its own, so that there need be no system turn.
        before: What begins a dialogue without a system turn.
        system: Before and after what a system turn says.
        asked: Between a question and its answer.
        answered: Between an answer and the next question.
        prompt: After the last question, by mode.
        compared: Prompts of the chat template that were equal.
    """

    own_switch: bool
    before: str
    system: tuple[str, str]
    asked: str
    answered: str
    prompt: dict[Mode, str]
    compared: int = 0

    def render(self, instructions: str, turns: Sequence[str], mode: Mode) -> str:
        """Return what the Go template of these texts writes."""
        said = instructions if self.own_switch else system_prompt(mode, instructions)
        between = (self.asked, self.answered)
        body = "".join(turn + between[place % 2] for place, turn in enumerate(turns[:-1]))
        return (said.join(self.system) if said else self.before) + body + turns[-1] + self.prompt[mode]

    def go_template(self) -> str:
        """Return the Go template, whose switch is Ollama's `think`: on unless a request says false.

        Ollama finds the tags of a trace around `.Thinking`, and gives them back apart from the answer.
        """
        start, end = map(_go, self.system)
        system = f"{{{{ if .System }}}}{start}{{{{ .System }}}}{end}{{{{ else }}}}{_go(self.before)}{{{{ end }}}}"
        if not self.own_switch:
            between = _go(system_prompt("on", "\0").removeprefix(THINK_SYSTEM["on"]).removesuffix("\0"))
            switch = _by_mode(THINK_SYSTEM)
            system = f"{start}{switch}{{{{ if .System }}}}{between}{{{{ .System }}}}{{{{ end }}}}{end}"
        trace = f"{{{{ if and $last .Thinking }}}}{THINK_OPEN}\n{{{{ .Thinking }}}}\n{THINK_CLOSE}\n\n{{{{ end }}}}"
        return (
            "{{ $off := and .IsThinkSet (not .Think) }}"
            + system
            + "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
            + '{{ if eq .Role "user" }}{{ .Content }}'
            + f"{{{{ if $last }}}}{_by_mode(self.prompt)}{{{{ else }}}}{_go(self.asked)}{{{{ end }}}}"
            + f'{{{{ else if eq .Role "assistant" }}}}{trace}{{{{ .Content }}}}'
            + f"{{{{ if not $last }}}}{_go(self.answered)}{{{{ end }}}}{{{{ end }}}}{{{{ end }}}}"
        )


def _go(text: str) -> str:
    """Return the action that writes a text as it is."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def _by_mode(texts: Mapping[Mode, str]) -> str:
    return f"{{{{ if $off }}}}{_go(texts['off'])}{{{{ else }}}}{_go(texts['on'])}{{{{ end }}}}"


def text_around_turns(formatter: ChatFormatter) -> Around:
    """Return what a chat template writes around turns.

    Raises:
        ExportError: It depends on more than roles and mode, so that no such texts make the prompts of the training.
    """
    own = bool(template_arguments(formatter.template))
    on, off = (_cut(formatter, _SYSTEM, mode, own=own) for mode in _MODES)
    before = _cut(formatter, "", "on", own=own)[0] if own else ""
    around = Around(own, before, (on[0], on[1]), on[2], on[3], {"on": on[-1], "off": off[-1]})
    dialogues = list(product(("", "Answer in French.\nBe brief."), _OTHERS, _MODES))
    for instructions, turns, mode in dialogues:
        if _rendered(formatter, instructions, turns, mode) != around.render(instructions, turns, mode):
            raise ExportError("the chat template writes prompts that depend on more than roles and mode")
    return replace(around, compared=len(dialogues))


def _rendered(formatter: ChatFormatter, instructions: str, turns: Sequence[str], mode: Mode) -> str:
    system = [Message("system", instructions)] if instructions else []
    said = [Message("assistant" if place % 2 else "user", turn) for place, turn in enumerate(turns)]
    return formatter.render(with_switch([*system, *said], mode), add_generation_prompt=True)


def _cut(formatter: ChatFormatter, instructions: str, mode: Mode, *, own: bool) -> list[str]:
    """Return the text before, between and after the turns of a dialogue."""
    said = instructions if own else system_prompt(mode, instructions)
    text, pieces = _rendered(formatter, instructions, _TURNS, mode), []
    for turn in (*([said] if said else ()), *_TURNS):
        piece, found, text = text.partition(turn)
        if not found:
            raise ExportError(f"the chat template leaves out what a turn says, or changes it: {turn!r}")
        pieces.append(piece)
    return [*pieces, text]


def modelfile(formatter: ChatFormatter, *, weights: str, max_seq_length: int) -> str:
    """Return the Modelfile of a GGUF file beside it.

    Args:
        formatter: Tokenizer and chat template of the training.
        weights: Name of the GGUF file.
        max_seq_length: Which the model was made for, in tokens.

    Raises:
        ExportError: Ollama cannot write the prompts of the training.
    """
    stop = formatter.tokenizer.convert_ids_to_tokens(formatter.end_of_turn)
    return f'''# ollama create NAME -f Modelfile; the switch is Ollama's: --think=false, or "think": false in a request.
FROM ./{weights}
TEMPLATE """{text_around_turns(formatter).go_template()}"""
PARAMETER stop {json.dumps(stop, ensure_ascii=False)}
PARAMETER temperature 0.6
PARAMETER top_p 0.95
PARAMETER num_ctx {min(max_seq_length, CONTEXT)}
'''
