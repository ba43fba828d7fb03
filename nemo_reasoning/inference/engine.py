"""What every inference engine takes and returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from nemo_reasoning.data.schema import Message, Mode
from nemo_reasoning.errors import EngineError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A dialogue to continue.

    Attributes:
        messages: Turns up to the assistant's; the engine puts the switch of `mode` into the system turn.
        mode: Whether the model is to think.
        max_new_tokens: Most tokens to generate, thinking included.
        thinking_budget: Most tokens between the tags; None sets no limit.
        temperature: 0 takes the likeliest token each time.
        top_p: Sample among the likeliest tokens that together reach this probability.
        seed: Of this request alone: what it is batched with does not change what is drawn.
    """

    messages: tuple[Message, ...]
    mode: Mode
    max_new_tokens: int
    thinking_budget: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values outside their range.

        Raises:
            EngineError: A value is out of range.
        """
        if not self.messages:
            raise EngineError("messages is empty; give at least one user turn")
        if self.max_new_tokens < 1:
            raise EngineError(f"max_new_tokens={self.max_new_tokens}; give 1 or more")
        if self.temperature < 0:
            raise EngineError(f"temperature={self.temperature}; give 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise EngineError(f"top_p={self.top_p}; give a share above 0 and up to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the model wrote.

    Attributes:
        text: All of it, without special tokens.
        reasoning: The content of the thinking block.
        answer: The text after it.
        well_formed: Whether the text has the format of its mode and came to its end.
        prompt_tokens: Tokens of the rendered dialogue.
        completion_tokens: Tokens generated, the end-of-turn token included, padding not.
        reasoning_tokens: Those of them that make up the thinking block, tags included.
        finish_reason: "stop" at an end-of-turn token, "length" at `max_new_tokens`.
    """

    text: str
    reasoning: str
    answer: str
    well_formed: bool
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    finish_reason: FinishReason


class Engine(Protocol):
    """Something that continues dialogues."""

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """Return one completion per request, in the order of the requests.

        Raises:
            EngineError: A request cannot be served by this model.
        """
        ...
