"""What clients may ask: OpenAI's requests, and every vendor's way to switch and bound the thinking."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from nemo_reasoning.inference.request import MOST_LOGPROBS
from nemo_reasoning.reasoning.sampling import Sampling

Text = Annotated[str, StringConstraints(max_length=2_000_000)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Budget = Annotated[int, Field(ge=0, le=10_000_000)]
MOST_STOPS = 16


class Strict(BaseModel):
    """An object without unknown fields; a field that is null counts as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return {key: entry for key, entry in value.items() if entry is not None} if isinstance(value, dict) else value


class TextPart(Strict):
    """Part of a message; pictures and sounds are not understood."""

    type: Literal["text"]
    text: Text


class ChatMessage(Strict):
    """A turn. What an assistant's turn says besides its content, such as reasoning, is not read again."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class TemplateOptions(Strict):
    """vLLM's and NVIDIA's arguments of chat templates."""

    enable_thinking: bool | None = None
    thinking: bool | None = None


class ThinkingOptions(Strict):
    """DeepSeek's switch."""

    type: Literal["enabled", "disabled"]
    budget_tokens: Budget | None = None


class NimExtension(Strict):
    """NIM's extension of OpenAI's protocol."""

    max_thinking_tokens: Budget | None = None


class StreamOptions(Strict):
    """OpenAI's options of a stream."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Neutral(Strict):
    """OpenAI's fields that change nothing here: those that only label a request, and others at rest."""

    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = None
    service_tier: Literal["auto", "default"] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @field_validator("frequency_penalty", "presence_penalty", mode="before")
    @classmethod
    def _whole_zero(cls, value: Any) -> Any:
        return 0 if isinstance(value, float) and value == 0 else value


class Sampled(Neutral):
    """What chats and completions share."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] = 1
    stop: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(max_length=MOST_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and "" in value:
            raise ValueError("an empty string stops nowhere; remove it")
        return value

    def sampling(self, default: Sampling) -> Sampling:
        """Return how tokens are drawn: as the request says, and by default where it does not."""
        given = {name: value for name in ("temperature", "top_p") if (value := getattr(self, name)) is not None}
        return replace(default, **given)

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(Sampled):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None
    modalities: list[Literal["text"]] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None

    chat_template_kwargs: TemplateOptions | None = None
    thinking: ThinkingOptions | None = None
    reasoning_effort: Literal["none", "low", "medium", "high"] | None = None
    reasoning_budget: Budget | None = None
    thinking_token_budget: Budget | None = None
    min_thinking_tokens: Budget | None = None
    nvext: NimExtension | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> "ChatRequest":
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise ValueError(
                f"max_tokens={self.max_tokens} and max_completion_tokens={self.max_completion_tokens}; give one of them"
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError(f"top_logprobs={self.top_logprobs} without logprobs=true; set logprobs=true")
        return self

    @model_validator(mode="after")
    def _order_of_turns(self) -> "ChatRequest":
        systems = [place for place, message in enumerate(self.messages) if message.role in ("system", "developer")]
        if systems not in ([], [0]):
            raise ValueError(f"messages[{systems[-1]}] is a system turn; there may be one, and it comes first")
        if self.messages[-1].role != "user":
            raise ValueError(f"the last message is the {self.messages[-1].role}'s; end with a user's")
        return self

    @property
    def limit(self) -> int | None:
        """Most tokens to generate."""
        return self.max_completion_tokens or self.max_tokens


Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(Sampled):
    """POST /v1/completions: texts or tokens, continued as they stand."""

    prompt: Text | Tokens | Annotated[list[Text], Field(min_length=1, max_length=128)]
    max_tokens: Count = 16
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None

    @property
    def prompts(self) -> list[str | tuple[int, ...]]:
        """The prompts, one or several."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [tuple(self.prompt)]
        return list(self.prompt)
