"""What an inference engine is asked, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from nemo_reasoning.errors import EngineError
from nemo_reasoning.reasoning.messages import Message, Mode
from nemo_reasoning.reasoning.sampling import Sampling

FinishReason = Literal["stop", "length"]
# Tags with the white space around them; the end of the turn; what was given.
Part = Literal["thinking", "answer", "tag", "end", "prompt"]
MOST_LOGPROBS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A dialogue or a text to continue.

    Attributes:
        messages: Turns up to the assistant's; the engine puts the switch of `mode` into the system turn.
        mode: Whether the model is to think.
        max_new_tokens: Most tokens to generate, thinking included.
        prompt: Text or tokens to continue as they stand, in place of messages: no template, no switch, no tags.
        prefill: What the assistant has said already, thinking included; the model goes on behind it.
        tools: Functions the model may call, as JSON schemas in OpenAI's form, for the chat template.
        schema: JSON schema, as JSON, that the answer has to match; thinking is free.
        thinking_budget: Most tokens between the tags. At the limit the engine closes the block, and an
            answer follows: the model can neither end before it nor think again. The block is also closed
            in time to leave a quarter of `max_new_tokens`, or 512 of them, to the answer. None sets no limit.
        min_thinking: Fewest tokens between the tags: a block that is closed earlier goes on with "Wait"
            (s1, arXiv 2501.19393). Above 0, the engine opens the block itself, and closes it in time.
        stop: Strings that end the answer, and are not part of it; thinking is not searched.
        echo: Whether the tokens of a bare prompt are reported too, with as many likeliest ones as `logprobs` says.
        logprobs: Likeliest tokens to report at each place besides the one chosen; None reports nothing.
        adapter: Name of the adapter to use, of those the engine has loaded; None is the model itself.
        sampling: How tokens are drawn.
        logit_bias: Tokens, and what is added to the logit of each before any other change.
        seed: Of this request alone: what it is batched with does not change what is drawn.
    """

    messages: tuple[Message, ...] = ()
    mode: Mode
    max_new_tokens: int
    prompt: str | tuple[int, ...] | None = None
    prefill: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    schema: str | None = None
    thinking_budget: int | None = None
    min_thinking: int = 0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    echo: bool = False
    adapter: str | None = None
    sampling: Sampling = Sampling()
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values outside their range.

        Raises:
            EngineError: A value is out of range.
        """
        if not self.messages and self.prompt is None:
            raise EngineError("messages is empty; give at least one user turn")
        if self.messages and self.prompt is not None:
            raise EngineError("both messages and prompt are given; give one of them")
        if self.max_new_tokens < 1:
            raise EngineError(f"max_new_tokens={self.max_new_tokens}; give 1 or more")
        if problems := self.sampling.problems():
            raise EngineError("\n".join(problems))
        if "" in self.stop:
            raise EngineError("stop holds an empty string; remove it")
        if self.echo and (self.prompt is None or self.logprobs is None):
            raise EngineError("echo=True needs a bare prompt, and logprobs; give both")
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise EngineError(f"logprobs={self.logprobs}; give 0 to {MOST_LOGPROBS}")
        self._check_thinking()

    def _check_thinking(self) -> None:
        budget, least = self.thinking_budget, self.min_thinking
        if budget is not None and budget < 0:
            raise EngineError(f"thinking_budget={budget}; give 0 or more tokens")
        if least < 0 or (budget is not None and least > budget):
            raise EngineError(f"min_thinking={least}; give 0 or more tokens, and no more than thinking_budget={budget}")
        if (budget or least) and (self.mode == "off" or self.prompt is not None):
            raise EngineError(
                f"thinking_budget={budget}, min_thinking={least}, but mode=off and bare prompts exclude thinking; "
                "give messages with mode=on"
            )

    def choices(self, count: int) -> list["GenerationRequest"]:
        """Return the request as often as asked for, with one seed after the other."""
        return [replace(self, seed=self.seed + number) for number in range(count)]


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token the model could have chosen.

    Attributes:
        text: What it adds.
        logprob: Natural logarithm of its probability at temperature 1.
    """

    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of a completion and how likely it was.

    Attributes:
        text: What it adds to its part; empty for one that only completes a character. Those of the answer,
            joined, are the answer.
        logprob: Natural logarithm of its probability at temperature 1, before any limit on the thinking.
        part: Of the completion.
        top: The likeliest tokens at its place, the likeliest first.
    """

    text: str
    logprob: float
    part: Part
    top: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """What one more token of a completion made certain.

    Attributes:
        reasoning: To append to the reasoning.
        answer: To append to the answer.
        logprobs: Of the tokens since the last delta, if they were asked for.
    """

    reasoning: str
    answer: str
    logprobs: tuple[TokenLogprob, ...] = ()


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
        reasoning_tokens: Those of them between the tags of thinking blocks.
        thinking_cut: Whether the engine has ended the thinking at a limit, rather than the model.
        finish_reason: "stop" at an end-of-turn token or a stop string, "length" at `max_new_tokens`.
        logprobs: Of every token generated, if they were asked for.
        echo: Of every token of the prompt, if they were asked for; the first has no log-probability: not a number.
        not_enforced: What a remote server did against the request, in words; empty where the engine runs here.
        lowered_to: Token limit in force, where a server kept less than `max_new_tokens`.
    """

    text: str
    reasoning: str
    answer: str
    well_formed: bool
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    finish_reason: FinishReason
    thinking_cut: bool = False
    logprobs: tuple[TokenLogprob, ...] = ()
    echo: tuple[TokenLogprob, ...] = ()
    not_enforced: tuple[str, ...] = ()
    lowered_to: int | None = None


Event = Delta | Completion | EngineError
"""What a running generation reports: deltas, then the completion or the error that ended it."""
