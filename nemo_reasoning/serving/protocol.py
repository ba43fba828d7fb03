"""What clients may ask: OpenAI's requests, and every vendor's way to switch and bound the thinking."""

import json
import re
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from nemo_reasoning.errors import ContextLengthError
from nemo_reasoning.inference.request import MOST_LOGPROBS
from nemo_reasoning.reasoning.sampling import Sampling
from nemo_reasoning.serving.messages import ChatMessage, Lenient, Strict
from nemo_reasoning.serving.tools import NamedTool, Tool

Count = Annotated[int, Field(ge=1, le=10_000_000)]
Budget = Annotated[int, Field(ge=0, le=10_000_000)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
MOST_STOPS, MOST_PROMPTS, MOST_BIASES = 16, 128, 1024
_TOKEN = re.compile(r"[0-9]{1,18}")  # what fits into 64 bits
_SAMPLING = ("temperature", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty")


class TemplateOptions(Lenient):
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
    continuous_usage_stats: Literal[False] | None = None


class JsonSchema(Lenient):
    """A JSON schema and its name."""

    name: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class ResponseFormat(Lenient):
    """What form the answer takes."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _with_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.schema_ is None):
            raise ValueError("json_schema.schema is missing; send it, or give the type 'json_object'")
        return self

    @property
    def schema_text(self) -> str | None:
        """The JSON schema of the answer; None for free text."""
        if self.type == "text":
            return None
        schema = self.json_schema.schema_ if self.json_schema else None
        return json.dumps(schema if self.type == "json_schema" else {"type": "object"})


class Neutral(Strict):
    """Fields that change nothing here: those that only label a request, and others at rest."""

    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    store: Literal[False] | None = None
    metadata: dict[str, Any] | None = None
    service_tier: Literal["auto", "default"] | None = None
    stop_token_ids: Annotated[list[int], Field(max_length=0)] | None = None
    min_tokens: Literal[0] | None = None
    ignore_eos: Literal[False] | None = None
    skip_special_tokens: Literal[True] | None = None
    spaces_between_special_tokens: bool | None = None
    include_stop_str_in_output: Literal[False] | None = None
    use_beam_search: Literal[False] | None = None
    best_of: Literal[1] | None = None


class Sampled(Neutral):
    """What chats and completions share."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MOST_BIASES)] = {}
    n: Annotated[int, Field(ge=1, le=128)] = 1
    stop: str | list[str] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @field_validator("stop")
    @classmethod
    def _usable_stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        if value == "" or (isinstance(value, list) and "" in value):
            raise ValueError("an empty string stops nowhere; remove it")
        if isinstance(value, list) and len(value) > MOST_STOPS:
            raise ValueError(f"{len(value)} strings; give at most {MOST_STOPS}")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _by_token(cls, value: dict[str, float]) -> dict[str, float]:
        if strange := [token for token in value if not _TOKEN.fullmatch(token)]:
            raise ValueError(
                f"{strange[0][:40]!r} is no number of a token; give numbers of tokens, and -100 to 100 for each"
            )
        return value

    @property
    def biases(self) -> tuple[tuple[int, float], ...]:
        """What is added to the logits of tokens."""
        return tuple((int(token), bias) for token, bias in self.logit_bias.items())

    def sampling(self, default: Sampling) -> Sampling:
        """Return how tokens are drawn: as the request says, and by default where it does not."""
        given: dict[str, Any] = {name: value for name in _SAMPLING if (value := getattr(self, name)) is not None}
        if self.top_k is not None:
            given["top_k"] = max(self.top_k, 0)  # -1 is vLLM's word for all tokens
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
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    tools: list[Tool] = []
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    continue_final_message: bool = False
    add_generation_prompt: bool | None = None

    chat_template_kwargs: TemplateOptions | None = None
    thinking: ThinkingOptions | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    reasoning_budget: Budget | None = None
    thinking_token_budget: Budget | None = None
    min_thinking_tokens: Budget | None = None
    nvext: NimExtension | None = None
    include_reasoning: Literal[True] | None = None
    separate_reasoning: Literal[True] | None = None

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
    def _choice_of_tools(self) -> "ChatRequest":
        choice, names = self.tool_choice, [tool.function.name for tool in self.tools]
        if choice not in (None, "none", "auto") and not names:
            raise ValueError("tool_choice asks for a call, but there are no tools; send tools")
        if isinstance(choice, NamedTool) and choice.function.name not in names:
            raise ValueError(f"tool_choice names {choice.function.name!r}; the tools are {', '.join(names)}")
        if self.must_call and self.response_format is not None and self.response_format.type != "text":
            raise ValueError("tool_choice asks for a call, and response_format for an answer; remove one of the two")
        return self

    @property
    def must_call(self) -> list[Tool]:
        """The tools of which one has to be called; empty if none has to."""
        if isinstance(self.tool_choice, NamedTool):
            return [tool for tool in self.tools if tool.function.name == self.tool_choice.function.name]
        return self.tools if self.tool_choice == "required" else []

    @model_validator(mode="after")
    def _order_of_turns(self) -> "ChatRequest":
        first = next((place for place, turn in enumerate(self.messages) if not turn.is_system), len(self.messages))
        late = next((place for place, turn in enumerate(self.messages) if turn.is_system and place > first), None)
        if late is not None:
            raise ValueError(f"messages[{late}] is a system turn; system turns come first")
        last = self.messages[-1]
        if last.role == "assistant" and not self.continues:
            raise ValueError(
                "the last message is the assistant's; end with a user's, or set continue_final_message=true "
                "(add_generation_prompt=false) to have it continued"
            )
        if self.continues and last.role != "assistant":
            raise ValueError(
                f"continue_final_message=true, but the last message is the {last.role}'s; end with the assistant's"
            )
        if self.add_generation_prompt is not None and self.add_generation_prompt == self.continues:
            raise ValueError(
                f"add_generation_prompt={str(self.continues).lower()} contradicts continue_final_message; leave it out"
            )
        if last.is_system:
            raise ValueError(f"the last message is the {last.role}'s; end with a user's")
        return self

    @property
    def continues(self) -> bool:
        """Whether the last message is the beginning of the answer."""
        return self.continue_final_message or self.messages[-1].prefix

    @property
    def limit(self) -> int | None:
        """Most tokens to generate."""
        return self.max_completion_tokens or self.max_tokens

    def too_long(self, error: ContextLengthError) -> str:
        """Return the field that is to blame for exceeding the context."""
        if error.prompt_tokens >= error.context:
            return "messages"
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"

    @property
    def ignored(self) -> set[str]:
        """Fields of messages and template arguments that are not understood, and change nothing."""
        turns = {f"messages.{name}" for message in self.messages for name in message.model_extra or {}}
        options = self.chat_template_kwargs.model_extra if self.chat_template_kwargs else None
        return turns | {f"chat_template_kwargs.{name}" for name in options or {}}


def _listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "maxItems": MOST_PROMPTS, "items": items}


_TEXT = {"type": "string", "minLength": 1}
_TOKENS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
_PROMPT = {"anyOf": [_TEXT, _listed(_TEXT), _TOKENS, _listed(_TOKENS)]}


class CompletionRequest(Sampled):
    """POST /v1/completions: texts or tokens, continued as they stand."""

    prompt: Annotated[Any, WithJsonSchema(_PROMPT)]
    max_tokens: Count = 16
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @model_validator(mode="after")
    def _echo_whole(self) -> "CompletionRequest":
        if self.echo and self.stream:
            raise ValueError("echo=true is not supported in streams; set stream=false")
        return self

    def too_long(self, error: ContextLengthError) -> str:
        """Return the field that is to blame for exceeding the context."""
        return "prompt" if error.prompt_tokens >= error.context else "max_tokens"

    @field_validator("prompt")
    @classmethod
    def _one_of_four_forms(cls, value: Any) -> list[str | tuple[int, ...]]:
        """Return the prompts of a text, a list of texts, tokens, or a list of lists of tokens."""
        several = value if isinstance(value, list) and value and not isinstance(value[0], int) else [value]
        prompts = [tuple(one) if _are_tokens(one) else one for one in several]
        if not all(isinstance(one, str | tuple) for one in prompts):
            raise ValueError("give a text, a list of texts, a list of tokens, or a list of lists of tokens")
        if "" in prompts:
            raise ValueError("an empty text has no token; write something")
        if len(prompts) > MOST_PROMPTS:
            raise ValueError(f"{len(prompts)} prompts; give at most {MOST_PROMPTS}")
        return prompts


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int and token >= 0 for token in value)
