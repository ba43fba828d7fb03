"""Render dialogues with a chat template, and mark the tokens the assistant says."""

import re
from collections.abc import Sequence
from functools import cache, cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from nemo_reasoning.data.special_tokens import SpecialTokens, cut_at_breaks
from nemo_reasoning.data.store import Encoded
from nemo_reasoning.errors import RowError, TemplateError
from nemo_reasoning.reasoning.messages import Message
from nemo_reasoning.reasoning.switch import THINK_SYSTEM, for_template, template_arguments
from nemo_reasoning.reasoning.tags import THINK_OPEN, with_thinking
from nemo_reasoning.reasoning.trace import keeps_trace

TEMPLATES = Path(__file__).parent / "templates"
_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_CLOCK = re.compile(r"strftime_now|date_string")
_TOOL = {"name": "probe_tool", "description": "probe_description", "parameters": {"type": "object", "properties": {}}}
_UNFORESEEN = (jinja2.TemplateError, TypeError, ValueError, RecursionError)  # of a template, such as at odd tools
_CALL = {"type": "function", "function": {"name": "probe_tool", "arguments": {"probe_key": "probe_value"}}}
_TOOL_TURNS = (
    *(Message("user", "a"), Message("assistant", "", tool_calls=(_CALL,))),
    *(Message("tool", "probe_result", name="probe_tool"), Message("assistant", "b")),
)


def load_template(name: str) -> str:
    """Return a chat template: one of the package's by name, or the content of a file.

    Raises:
        TemplateError: There is no such template, it does not mark the assistant's tokens, or it writes the date.
    """
    path = TEMPLATES / f"{name}.jinja"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        known = ", ".join(sorted(template.stem for template in TEMPLATES.glob("*.jinja")))
        raise TemplateError(f"model.template={name} is neither a file nor one of {known}")
    template = path.read_text(encoding="utf-8").removesuffix("\n")
    _check_template(template, origin=str(path))
    return template


@cache
def fixed_templates() -> frozenset[str]:
    """Return the package's templates that keep every turn and depend on nothing but roles: none has its own switch."""
    texts = (load_template(path.stem) for path in TEMPLATES.glob("*.jinja"))
    return frozenset(text for text in texts if not template_arguments(text))


def _check_template(template: str, *, origin: str) -> None:
    if not _GENERATION.search(template):
        raise TemplateError(
            f"{origin} has no {{% generation %}} block, so no token could be told from the prompt; put "
            "{% generation %} and {% endgeneration %} around what the assistant says, its end-of-turn token included"
        )
    if clock := _CLOCK.search(template):
        raise TemplateError(f"{origin} uses {clock[0]}: prompts would differ from day to day; remove the date")


class ChatFormatter:
    """Turns dialogues into token ids with a loss mask, and prompts into token ids.

    The template writes the beginning-of-text token, so the tokenizer adds none.

    Attributes:
        tokenizer: A fast Hugging Face tokenizer.
        template: Text of the chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        """Take a fast tokenizer and the text of a template with generation blocks.

        Raises:
            TemplateError: The template does not mark the assistant's tokens, or writes the date.
        """
        _check_template(template, origin="the chat template")
        self.tokenizer, self.template = tokenizer, template
        self.special = SpecialTokens(tokenizer, template)
        self._keeps_traces, self._arguments = template in fixed_templates(), template_arguments(template)

    @classmethod
    def load(cls, folder: Path, *, template: str) -> "ChatFormatter":
        """Return a formatter with the tokenizer of a Hugging Face directory."""
        return cls(AutoTokenizer.from_pretrained(folder, trust_remote_code=False), template)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """Return the dialogue as text."""
        options = {"tools": list(messages[0].tools) or None, "add_generation_prompt": add_generation_prompt}
        return str(self._apply(messages, tokenize=False, **options))

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a dialogue up to where the assistant begins to speak."""
        ids: list[int] = self._apply(messages, tokenize=True, add_generation_prompt=True)
        return ids

    def encode(self, messages: Sequence[Message]) -> Encoded:
        """Return token ids and loss mask of a dialogue: the tokens of its target turns, end-of-turn included.

        Raises:
            RowError: "reason: detail" of why the dialogue cannot be trained on.
        """
        (result,) = self.encode_all([messages])
        if isinstance(result, RowError):
            raise result
        return result

    def encode_all(self, dialogues: Sequence[Sequence[Message]]) -> list[Encoded | RowError]:
        """Return what `encode` returns or raises for each dialogue; several at once are much faster."""
        results: list[Encoded | RowError | None] = [self.unusable(messages) for messages in dialogues]
        plain = [  # those that can be rendered and tokenised in one go
            number
            for number, messages in enumerate(dialogues)
            if results[number] is None and not messages[0].tools and self.special.as_text(messages) is None
        ]
        encoded = self._tokenise([dialogues[number] for number in plain])
        for number, result in zip(plain, encoded, strict=True):
            results[number] = result
        return [
            self._tokenise_pieces(messages) if result is None else result
            for messages, result in zip(dialogues, results, strict=True)
        ]

    def check(self) -> None:
        """Prove on a sample that what the template renders can be trained on and prompted with.

        Raises:
            TemplateError: The sample is refused or not marked, the beginning-of-text token is missing or
                doubled, the end of a turn is not a target, or a prompt does not begin as the trained
                dialogue did.
        """
        encoded, prompt = self._sample
        ids, first = encoded.ids.tolist(), int(encoded.loss_mask.argmax())
        begin = self.tokenizer.bos_token_id
        wanted = self.tokenizer("a")["input_ids"][0] == begin
        if begin is not None and (ids[:2] == [begin, begin] or (wanted and ids[0] != begin)):
            raise TemplateError(
                f"the chat template must write the beginning-of-text token {self.tokenizer.bos_token} exactly once, "
                f"first of all; it renders {self.tokenizer.decode(ids[:8])!r}"
            )
        self.end_of_turn  # noqa: B018 - raises if it is no special token
        if prompt != ids[:first]:
            raise TemplateError(
                f"with add_generation_prompt the chat template renders {self.tokenizer.decode(prompt[-8:])!r} before "
                f"the answer, but training has {self.tokenizer.decode(ids[:first][-8:])!r}; make them equal"
            )

    @cached_property
    def end_of_turn(self) -> int:
        """Id of the token that ends what the assistant says: the last one training targets.

        Raises:
            TemplateError: It is no special token, so an engine could not stop there.
        """
        encoded, _ = self._sample
        last = int(encoded.ids[encoded.loss_mask][-1])
        token = self.tokenizer.added_tokens_decoder.get(last)
        if token is None or not token.special:
            raise TemplateError(
                f"the last token in the generation block of the chat template is {self.tokenizer.decode([last])!r}, "
                "no end-of-turn token: the model would never learn to stop; put the end-of-turn token before "
                "{% endgeneration %}"
            )
        return last

    @cached_property
    def _sample(self) -> tuple[Encoded, list[int]]:
        """A dialogue, and the prompt that asks for its answer."""
        asked = (Message("system", THINK_SYSTEM["on"]), Message("user", "What is 2 + 2?"))
        answered = (*asked, Message("assistant", with_thinking("2 + 2 = 4", "It is 4.")))
        try:
            return self.encode(answered), self.prompt_ids(asked)
        except (RowError, jinja2.TemplateError) as error:
            raise TemplateError(
                f"the chat template cannot render a system, a user and an assistant turn: {error}"
            ) from error

    def unusable(self, messages: Sequence[Message]) -> RowError | None:
        """Return why a dialogue cannot be trained on, before it is rendered; None if it can."""
        if not any(message.role == "assistant" and message.target for message in messages):
            return RowError("no supervised token: the dialogue has no assistant turn to learn")
        for message in messages:
            if found := self.special.control_in(message.content):
                return RowError(f"special token in the text: {found} in the {message.role} turn")
            if (message.tool_calls or message.tools or message.role == "tool") and not self.renders_tools:
                return RowError("tools: the chat template renders no tool definitions, calls and results")
        return None

    @cached_property
    def renders_tools(self) -> bool:
        """Whether the template writes definitions, calls and results of tools."""
        try:
            plain = self._apply(_TOOL_TURNS, tokenize=False)
            defined = self._apply(_TOOL_TURNS, tools=[{"type": "function", "function": _TOOL}], tokenize=False)
        except _UNFORESEEN:
            return False
        return "probe_description" in defined and all(word in plain for word in ("probe_value", "probe_result"))

    def cut(self, messages: Sequence[Message]) -> list[str] | None:
        """Return the text of a dialogue in pieces, every second one an assistant's; None if the template refuses it.

        Raises:
            ImportError: transformers is too old.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        plain, switch = for_template(messages, self._arguments)
        try:
            ((text,), (spans,)) = render_jinja_template(
                [_turns(plain)],
                tools=list(messages[0].tools) or None,
                chat_template=self.template,
                return_assistant_tokens_mask=True,
                **switch,
                **self.tokenizer.special_tokens_map,
            )
        except _UNFORESEEN:
            return None
        return [text[start:end] for start, end in pairwise([0, *chain.from_iterable(spans), len(text)])]

    def targets(self, messages: Sequence[Message], said: Sequence[str] | None = None) -> list[bool]:
        """Return which assistant turns are trained on, given the text that the template made of each.

        A thinking turn whose trace the template removes is context: its text is not what the mode asks for. Where a
        template has its own switch, so are turns without thinking before the last: only there it writes that mode.
        """
        turns = [message for message in messages if message.role == "assistant"]
        if said is None or self._keeps_traces:
            return [turn.target for turn in turns]
        if self._arguments and not turns[-1].content.startswith(THINK_OPEN):
            return [False] * (len(turns) - 1) + [turns[-1].target]
        return [turn.target and keeps_trace(turn.content, text) for turn, text in zip(turns, said, strict=True)]

    def _tokenise_pieces(self, messages: Sequence[Message]) -> Encoded | RowError:
        """Tokenise a dialogue with tools, or with special tokens that are text."""
        pieces = self.cut(self.special.as_text(messages) or messages)
        turns = sum(message.role == "assistant" for message in messages)
        if pieces is None or len(pieces) != 2 * turns + 1:
            return RowError("refused by the chat template, or assistant turns not marked")
        texts, marks = cut_at_breaks(pieces, self.targets(messages, pieces[1::2]))
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        flat = np.fromiter(chain.from_iterable(ids), dtype=np.int32)
        if self.tokenizer.decode(flat.tolist()) != "".join(texts):
            return RowError("special token in the text: this tokenizer cannot write it as text")
        return _supervised(flat, np.repeat(np.array(marks, dtype=np.bool_), [len(piece) for piece in ids]))

    def _tokenise(self, dialogues: Sequence[Sequence[Message]]) -> list[Encoded | RowError]:
        if not dialogues:
            return []
        switched = [for_template(messages, self._arguments) for messages in dialogues]
        if any(switch != switched[0][1] for _, switch in switched):
            return [result for messages in dialogues for result in self._tokenise([messages])]
        try:
            tokens = self.tokenizer.apply_chat_template(
                [_turns(plain) for plain, _ in switched],
                chat_template=self.template,
                return_dict=True,
                return_assistant_tokens_mask=True,
                **switched[0][1],
            )
        except _UNFORESEEN as error:
            if len(dialogues) == 1:
                return [RowError(f"refused by the chat template: {error}")]
            return [result for messages in dialogues for result in self._tokenise([messages])]
        columns = zip(dialogues, tokens["input_ids"], tokens["assistant_masks"], strict=True)
        return [self._encoded(messages, ids, mask) for messages, ids, mask in columns]

    def _encoded(self, messages: Sequence[Message], ids: list[int], mask: list[int]) -> Encoded | RowError:
        """Return a dialogue with the marked stretches of its target turns only."""
        loss_mask: NDArray[np.bool_] = np.asarray(mask, dtype=np.bool_)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], loss_mask, [False]])))
        if len(edges) != 2 * (turns := sum(message.role == "assistant" for message in messages)):
            return RowError(f"assistant turns not marked: {len(edges) // 2} stretches of tokens for {turns} turns")
        stretches = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
        said = None if self._keeps_traces else [self.tokenizer.decode(ids[start:end]) for start, end in stretches]
        for target, (start, end) in zip(self.targets(messages, said), stretches, strict=True):
            loss_mask[start:end] &= target
        return _supervised(np.asarray(ids, dtype=np.int32), loss_mask)

    def _apply(self, messages: Sequence[Message], **options: Any) -> Any:
        plain, switch = for_template(messages, self._arguments)
        return self.tokenizer.apply_chat_template(_turns(plain), chat_template=self.template, **switch, **options)


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message.to_dict() for message in messages]


def _supervised(ids: NDArray[np.int32], loss_mask: NDArray[np.bool_]) -> Encoded | RowError:
    if not loss_mask.any():
        return RowError("no supervised token: of the turns to learn the chat template keeps none in its mode")
    return Encoded(ids, loss_mask)
