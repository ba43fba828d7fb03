"""The tokenizer side of a model: prompts to tokens, tokens to text, and where a turn ends."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from nemo_reasoning.errors import ContextLengthError, EngineError, ModelSourceError, SwitchError
from nemo_reasoning.inference.grammar import Grammar, grammar_tokenizer
from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.inference.thinking_budget import forced_tokens
from nemo_reasoning.models.hf_config import read_tokenizer_config
from nemo_reasoning.reasoning.messages import Message
from nemo_reasoning.reasoning.switch import TEMPLATE_ARGUMENTS, template_arguments, with_switch, without_switch
from nemo_reasoning.reasoning.tags import THINK_CLOSE, THINK_OPEN, split_thinking


class Prompt(NamedTuple):
    """A request as the model reads it.

    Attributes:
        ids: Token ids, not empty.
        prefix: What the assistant has said already at their end: an opening tag, as some chat templates write it.
    """

    ids: list[int]
    prefix: str = ""


class ChatTokenizer:
    """A tokenizer with a chat template, and the model's end-of-turn tokens.

    Attributes:
        hf_tokenizer: Carries the template.
        stop_ids: Tokens that end a turn.
        forced_tokens: What an engine writes to steer the thinking.
        context: Most tokens of prompt and completion together.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, stop_ids: frozenset[int], context: int) -> None:
        """Take a tokenizer that has a chat template."""
        self.hf_tokenizer, self.stop_ids, self.context = tokenizer, stop_ids, context
        special = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special = {text: number for text, number in special.items() if text.strip()}
        self._hidden = frozenset(special.values()) - {special.get(THINK_OPEN), special.get(THINK_CLOSE)}
        self.forced_tokens = forced_tokens(self._encode, self.decode)
        self._size = len(tokenizer)  # which tokenizers count anew every time, in tens of milliseconds

    def prompt(self, request: GenerationRequest) -> Prompt:
        """Return the tokens of a request's dialogue up to where the assistant goes on to speak, or of its text.

        Raises:
            ContextLengthError: They and `max_new_tokens` exceed the context.
            EngineError: The dialogue cannot be rendered, or there are no tokens.
        """
        self._known([token for token, _ in request.logit_bias], of="logit_bias")
        prefix = ""
        if isinstance(request.prompt, str):
            ids: list[int] = self.hf_tokenizer(request.prompt)["input_ids"]
        elif request.prompt is not None:
            ids = self._known(request.prompt, of="prompt")
        else:
            ids, prefix = self._dialogue(request)
        if not ids:
            raise EngineError("the prompt has no token; write something")
        if len(ids) + request.max_new_tokens > self.context:
            raise ContextLengthError(
                prompt_tokens=len(ids), max_new_tokens=request.max_new_tokens, context=self.context
            )
        return Prompt(ids, prefix)

    def max_new_tokens_for(self, request: GenerationRequest) -> int:
        """Return how many tokens may follow a request's prompt.

        Raises:
            EngineError: The prompt leaves no room.
        """
        return self.context - len(self.prompt(replace(request, max_new_tokens=1)).ids)

    def _known(self, ids: Sequence[int], *, of: str) -> list[int]:
        unknown = [token for token in ids if not 0 <= token < self._size]
        if unknown:
            raise EngineError(f"{of}: there is no token {unknown[0]}; the model knows 0 to {self._size - 1}")
        return list(ids)

    def _dialogue(self, request: GenerationRequest) -> Prompt:
        """Return the tokens of a dialogue, and what the assistant has said at their end."""
        turns = [_without_thinking(message).to_dict() for message in self._switched(request)]
        if request.tools and not self.takes_tools:
            raise EngineError("the chat template of this model knows no tools; remove tools, or set tool_choice=none")
        marks = self._marks([*(turn["content"] for turn in turns), request.prefill])
        for turn in turns:
            turn["content"] = _replaced(turn["content"], marks)
        rendered = self._render(turns, request)
        opened = rendered.rstrip().endswith(THINK_OPEN)
        said = _behind_tag(request.prefill) if opened and request.prefill else request.prefill
        whole = rendered + _replaced(said, marks)
        ids = self._encode_marked(whole, marks) if marks else self._encode(whole)
        return Prompt(ids, THINK_OPEN * opened + said)

    def _switched(self, request: GenerationRequest) -> tuple[Message, ...]:
        """Return the dialogue with its mode said once: by the template's own switch, or in the system turn."""
        switched = without_switch if template_arguments(str(self.hf_tokenizer.chat_template)) else with_switch
        try:
            return switched(request.messages, request.mode)
        except SwitchError as error:
            raise EngineError(str(error)) from error

    def _marks(self, texts: Sequence[str]) -> dict[str, str]:
        """Return a mark, that stands in no text, for each special token that somebody has written in one."""
        spoken = sorted((text for text in self._special if any(text in one for one in texts)), key=len, reverse=True)
        fence = "\ue000"  # of Unicode's private use
        while spoken and any(fence in text for text in texts):
            fence += "\ue000"
        return {text: f"{fence}{number}{fence}" for number, text in enumerate(spoken)}

    def _render(self, turns: list[dict[str, Any]], request: GenerationRequest) -> str:
        options = dict.fromkeys(TEMPLATE_ARGUMENTS, request.mode == "on") | {"tools": list(request.tools) or None}
        try:
            text: Any = self.hf_tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=False, **options
            )
        except Exception as error:  # a template is a program: arguments of a call that are no object end some of them
            why = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
            raise EngineError(f"the chat template refuses the dialogue: {why}; change its turns") from error
        return str(text)

    def _encode_marked(self, text: str, marks: Mapping[str, str]) -> list[int]:
        """Encode a dialogue in which marks stand for special tokens that somebody has written: they are text."""
        pattern = "|".join(map(re.escape, sorted(self._special, key=len, reverse=True)))
        ids: list[int] = []
        for part in re.split(f"({pattern})", text):
            if part in self._special:
                ids.append(self._special[part])
                continue
            ids += self._plain(_replaced(part, {mark: spoken for spoken, mark in marks.items()}))
        return ids

    @cached_property
    def _plain(self) -> Callable[[str], list[int]]:
        """What encodes a text and takes special tokens for text; a copy, because that is a state of tokenizers."""
        if not self.hf_tokenizer.is_fast:
            return partial(self.hf_tokenizer.encode, add_special_tokens=False, split_special_tokens=True)
        plain: Any = Tokenizer.from_str(self.hf_tokenizer.backend_tokenizer.to_str())
        plain.encode_special_tokens = True
        return lambda text: plain.encode(text, add_special_tokens=False).ids if text else []

    @cached_property
    def takes_tools(self) -> bool:
        """Whether the chat template tells the model of tools."""
        return re.search(r"\{[%{][^{}]*\btools\b", str(self.hf_tokenizer.chat_template)) is not None

    def grammar(self, schema: str) -> Grammar:
        """Return what keeps an answer to a JSON schema.

        Raises:
            EngineError: That cannot be done with this schema or tokenizer.
        """
        return Grammar(self._grammar_tokenizer, schema)

    @cached_property
    def _grammar_tokenizer(self) -> Any:
        return grammar_tokenizer(self.hf_tokenizer, self.stop_ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without special ones; thinking tags are kept."""
        shown = [token for token in tokens if token not in self._hidden]
        return str(self.hf_tokenizer.decode(shown, clean_up_tokenization_spaces=False))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.hf_tokenizer.encode(text, add_special_tokens=False)
        return ids


def _without_thinking(message: Message) -> Message:
    """Return an earlier turn of the assistant as its answer alone."""
    if message.role != "assistant":
        return message
    split = split_thinking(message.content, "off")
    thought = split.reasoning or message.content.lstrip().startswith(THINK_OPEN)
    return replace(message, content=split.answer) if thought else message


def _replaced(text: str, pairs: Mapping[str, str]) -> str:
    for old, new in pairs.items():
        text = text.replace(old, new)
    return text


def _behind_tag(prefill: str) -> str:
    """Return the beginning of an answer as it continues a prompt that has opened the block."""
    if prefill.lstrip().startswith(THINK_OPEN):
        return prefill.lstrip().removeprefix(THINK_OPEN).lstrip("\n")
    return f"{THINK_CLOSE}\n\n{prefill}"


def load_chat_tokenizer(
    model: Path | str, adapter: Path | None, *, context: int | None = None, chat_template: str | None = None
) -> ChatTokenizer:
    """Return the tokenizer of a model or of an adapter, whose own tokenizer comes first.

    Args:
        model: Directory or hub id of the model.
        adapter: Directory of a PEFT adapter.
        context: Most tokens of prompt and completion; None is what the model was made for.
        chat_template: Text of a template that takes the place of the tokenizer's own.

    Raises:
        EngineError: There is no tokenizer, no template or no end-of-turn token, or `context` is out of range.
    """
    tokenizer = _load_tokenizer(model, adapter, chat_template=chat_template)
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise EngineError(f"no model in {model} ({error}); give a Hugging Face directory or a hub id") from error
    most: int = config.max_position_embeddings
    if context is not None and not 1 <= context <= most:
        raise EngineError(f"context={context}; the model takes 1 to {most} tokens")
    return ChatTokenizer(tokenizer, stop_ids=_stop_ids(model, config, tokenizer), context=context or most)


def tokenizer_of(tokenizers: Mapping[str | None, ChatTokenizer], adapter: str | None) -> ChatTokenizer:
    """Return the tokenizer of an adapter, or of the model.

    Raises:
        EngineError: There is no such adapter.
    """
    try:
        return tokenizers[adapter]
    except KeyError:
        known = ", ".join(name for name in tokenizers if name) or "none"
        raise EngineError(f"adapter={adapter!r} is not loaded; loaded: {known}") from None


def _load_tokenizer(model: Path | str, adapter: Path | None, *, chat_template: str | None) -> PreTrainedTokenizerBase:
    source = model
    if adapter is not None and (adapter / "tokenizer_config.json").is_file():
        source = adapter
    try:
        if Path(source).is_dir():
            read_tokenizer_config(Path(source))
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, ModelSourceError) as error:
        raise EngineError(f"no tokenizer in {source} ({error}); point at the directory of an exported model") from error
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    if tokenizer.chat_template is None:
        raise EngineError(
            f"the tokenizer in {source} has no chat template; name the one the model was trained with "
            "(template=chatml or another, or a file), or add chat_template.jinja to the directory"
        )
    return tokenizer


def _stop_ids(model: Path | str, config: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    try:
        generation = GenerationConfig.from_pretrained(model)
    except OSError:  # optional in a model's directory
        generation = GenerationConfig.from_model_config(config)
    declared = generation.eos_token_id
    listed = declared if isinstance(declared, list) else [declared]
    stops = frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)
    if not stops:
        raise EngineError(
            "neither tokenizer nor generation_config names an EOS token; set eos_token in tokenizer_config.json"
        )
    return stops
