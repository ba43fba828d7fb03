"""What a text completion asks of the engine, and how its answers look."""

from typing import Any

from nemo_reasoning.inference.engine import Completion, Delta, GenerationRequest
from nemo_reasoning.serving import replies
from nemo_reasoning.serving.chat import seed_of
from nemo_reasoning.serving.schema import CompletionRequest


def text_generations(body: CompletionRequest, *, adapter: str | None) -> list[GenerationRequest]:
    """Return what the engine is to do for each choice: those of the first prompt, of the second, and so on.

    Raises:
        EngineError: A value is out of range.
    """
    seed = seed_of(body.seed)
    return [
        GenerationRequest(
            prompt=prompt,
            mode="off",
            max_new_tokens=body.max_tokens,
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=seed + number,
            stop=body.stops,
            logprobs=body.logprobs,
            adapter=adapter,
        )
        for prompt in body.prompts
        for number in range(body.n)
    ]


class TextFormat:
    """Answers as text completions."""

    kinds = ("text_completion", "text_completion")
    prefix = "cmpl"

    def __init__(self, *, logprobs: bool) -> None:
        """Take whether log-probabilities are told."""
        self._logprobs = logprobs

    def whole(self, index: int, completion: Completion) -> dict[str, Any]:
        """Return a finished choice."""
        return replies.text_choice(
            index,
            completion.text,
            entries=completion.logprobs,
            logprobs=self._logprobs,
            finish_reason=completion.finish_reason,
        )

    def begin(self, index: int) -> None:
        """Return nothing: a streamed choice begins with its text."""

    def part(self, index: int, delta: Delta) -> dict[str, Any]:
        """Return what a delta adds to a streamed choice."""
        return replies.text_choice(
            index, delta.answer, entries=delta.logprobs, logprobs=self._logprobs, finish_reason=None
        )

    def end(self, index: int, completion: Completion) -> dict[str, Any]:
        """Return the last part of a streamed choice."""
        return replies.text_choice(index, "", entries=(), logprobs=False, finish_reason=completion.finish_reason)
