"""What a chat asks of the engine, and how its answers look."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemo_reasoning.inference.engine import Completion, Delta, GenerationRequest
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.serving import replies
from nemo_reasoning.serving.schema import ChatRequest
from nemo_reasoning.serving.switches import plain_messages, thinking_of


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn when a request does not say."""

    temperature: float
    top_p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What holds when a request does not say.

    Attributes:
        mode: Of thinking.
        sampling: By mode.
        efforts: Budget of thinking tokens by effort: low, medium, high.
    """

    mode: Mode
    sampling: Mapping[Mode, Sampling]
    efforts: Mapping[str, int]


def chat_generation(body: ChatRequest, *, adapter: str | None, defaults: Defaults) -> GenerationRequest:
    """Return what the engine is to do for the first choice of a chat.

    Raises:
        RequestError: Wishes about the thinking contradict each other.
        EngineError: A value is out of range.
    """
    thinking = thinking_of(body, efforts=defaults.efforts)
    mode = thinking.mode or defaults.mode
    sampling = defaults.sampling[mode]
    return GenerationRequest(
        messages=plain_messages(body),
        mode=mode,
        max_new_tokens=body.limit or 1,
        thinking_budget=None if mode == "off" else thinking.budget,
        min_thinking=thinking.least,
        temperature=sampling.temperature if body.temperature is None else body.temperature,
        top_p=sampling.top_p if body.top_p is None else body.top_p,
        seed=seed_of(body.seed),
        stop=body.stops,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        adapter=adapter,
    )


def seed_of(given: int | None) -> int:
    """Return the seed a request gives, or a new one."""
    return secrets.randbits(62) if given is None else given


class ChatFormat:
    """Answers as chat completions."""

    kinds = ("chat.completion", "chat.completion.chunk")
    prefix = "chatcmpl"

    def __init__(self, *, logprobs: bool) -> None:
        """Take whether log-probabilities are told."""
        self._logprobs = logprobs

    def whole(self, index: int, completion: Completion) -> dict[str, Any]:
        """Return a finished choice."""
        return replies.chat_choice(index, completion, logprobs=self._logprobs)

    def begin(self, index: int) -> dict[str, Any]:
        """Return the first part of a streamed choice."""
        return replies.chunk_choice(index, {"role": "assistant", "content": ""})

    def part(self, index: int, delta: Delta) -> dict[str, Any]:
        """Return what a delta adds to a streamed choice."""
        words = replies.reasoning_fields(delta.reasoning) if delta.reasoning else {}
        if delta.answer:
            words["content"] = delta.answer
        told = replies.chat_logprobs(delta.logprobs) if self._logprobs else None
        return replies.chunk_choice(index, words, logprobs=told)

    def end(self, index: int, completion: Completion) -> dict[str, Any]:
        """Return the last part of a streamed choice."""
        return replies.chunk_choice(index, {}, finish_reason=completion.finish_reason)
