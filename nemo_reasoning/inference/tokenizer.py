"""The tokenizer side of a model: prompts to tokens, tokens to text, and where a turn ends."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from nemo_reasoning.errors import EngineError, SwitchError
from nemo_reasoning.inference.request import GenerationRequest
from nemo_reasoning.inference.thinking_budget import forced_tokens
from nemo_reasoning.reasoning.switch import with_switch
from nemo_reasoning.reasoning.tags import THINK_OPEN


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
        self.forced_tokens = forced_tokens(self._encode, self.decode)

    def prompt(self, request: GenerationRequest) -> Prompt:
        """Return the tokens of a request's dialogue up to where the assistant begins to speak, or of its text.

        Raises:
            EngineError: They and `max_new_tokens` exceed the context, or there are none.
        """
        prefix = ""
        if isinstance(request.prompt, str):
            ids: list[int] = self.hf_tokenizer(request.prompt)["input_ids"]
        elif request.prompt is not None:
            ids = self._known(request.prompt)
        else:
            ids = self._render(request)
            prefix = THINK_OPEN if self.decode(ids[-8:]).rstrip().endswith(THINK_OPEN) else ""
        if not ids:
            raise EngineError("the prompt has no token; write something")
        if len(ids) + request.max_new_tokens > self.context:
            raise EngineError(
                f"the prompt's {len(ids)} tokens and {request.max_new_tokens} new ones exceed the model's context "
                f"of {self.context}; ask for fewer new tokens or shorten the prompt"
            )
        return Prompt(ids, prefix)

    def max_new_tokens_for(self, request: GenerationRequest) -> int:
        """Return how many tokens may follow a request's prompt.

        Raises:
            EngineError: The prompt leaves no room.
        """
        return self.context - len(self.prompt(replace(request, max_new_tokens=1)).ids)

    def _known(self, ids: Sequence[int]) -> list[int]:
        size = len(self.hf_tokenizer)
        unknown = [token for token in ids if not 0 <= token < size]
        if unknown:
            raise EngineError(f"token {unknown[0]} in the prompt; the model knows 0 to {size - 1}")
        return list(ids)

    def _render(self, request: GenerationRequest) -> list[int]:
        try:
            turns = [message.to_dict() for message in with_switch(request.messages, request.mode)]
            tokens: Any = self.hf_tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
        except SwitchError as error:
            raise EngineError(str(error)) from error
        except TemplateError as error:
            raise EngineError(f"the chat template refuses the dialogue: {error}; change its turns") from error
        ids: list[int] = tokens["input_ids"]
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        text: str = self.hf_tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.hf_tokenizer.encode(text, add_special_tokens=False)
        return ids


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
        config = AutoConfig.from_pretrained(model)
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
    own = adapter is not None and (adapter / "tokenizer_config.json").is_file()
    source = adapter if own else model
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
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
