"""The tokenizer side of a model: prompts to tokens, tokens to text, and where a turn ends."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from nemo_reasoning.data.schema import THINK_OPEN
from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference.engine import GenerationRequest
from nemo_reasoning.inference.steering import phrases
from nemo_reasoning.inference.thinking import with_switch


class Prompt(NamedTuple):
    """A request as the model reads it.

    Attributes:
        ids: Token ids, not empty.
        thinking: Whether they end with an opened thinking block, as some chat templates make them.
    """

    ids: list[int]
    thinking: bool


class Voice:
    """A tokenizer with a chat template, and the model's end-of-turn tokens.

    Attributes:
        tokenizer: Carries the template.
        stop_ids: Tokens that end a turn.
        phrases: What an engine writes to steer the thinking.
        context: Most tokens of prompt and completion together.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, stop_ids: frozenset[int], context: int) -> None:
        """Take a tokenizer that has a chat template."""
        self.tokenizer, self.stop_ids, self.context = tokenizer, stop_ids, context
        self.phrases = phrases(self._encode, self.decode)

    def prompt(self, request: GenerationRequest) -> Prompt:
        """Return the tokens of a request's dialogue up to where the assistant begins to speak, or of its text.

        Raises:
            EngineError: They and `max_new_tokens` exceed the context, or there are none.
        """
        thinking = False
        if isinstance(request.prompt, str):
            ids: list[int] = self.tokenizer(request.prompt)["input_ids"]
        elif request.prompt is not None:
            ids = self._known(request.prompt)
        else:
            ids = self._render(request)
            thinking = self.decode(ids[-8:]).rstrip().endswith(THINK_OPEN)
        if not ids:
            raise EngineError("the prompt has no token; write something")
        if len(ids) + request.max_new_tokens > self.context:
            raise EngineError(
                f"the prompt's {len(ids)} tokens and max_new_tokens={request.max_new_tokens} exceed the "
                f"model's context of {self.context}; lower max_new_tokens or shorten the prompt"
            )
        return Prompt(ids, thinking)

    def _known(self, ids: Sequence[int]) -> list[int]:
        size = len(self.tokenizer)
        unknown = [token for token in ids if not 0 <= token < size]
        if unknown:
            raise EngineError(f"token {unknown[0]} in the prompt; the model knows 0 to {size - 1}")
        return list(ids)

    def _render(self, request: GenerationRequest) -> list[int]:
        turns = [message.to_dict() for message in with_switch(request.messages, request.mode)]
        try:
            tokens: Any = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
        except TemplateError as error:
            raise EngineError(f"the chat template refuses the dialogue: {error}; change its turns") from error
        ids: list[int] = tokens["input_ids"]
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids
