"""One request while it is served: picks its tokens, keeps its limits, and reports its text."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference.detokenizer import StopFinder
from nemo_reasoning.inference.hf.sampling import Sampler, logprobs_of
from nemo_reasoning.inference.request import (
    Alternative,
    Completion,
    Delta,
    Event,
    FinishReason,
    GenerationRequest,
    TokenLogprob,
)
from nemo_reasoning.inference.thinking_budget import ThinkingBudget, TokenDecision
from nemo_reasoning.inference.tokenizer import ChatTokenizer, Prompt
from nemo_reasoning.inference.transcript import Transcript
from nemo_reasoning.reasoning.tags import split_thinking


class Record(NamedTuple):
    """How likely a token was: what it adds, its log-probability, and the likeliest in its place."""

    text: str
    logprob: float
    top: tuple[Alternative, ...]


class TokenSequence:
    """Writes the completion of a request, a token at a time.

    Attributes:
        prompt: Tokens to continue.
        tokens: Tokens written and kept; the last one may take the place of some that were taken back.
        limit: Most tokens to write.
        done: Whether all has been reported.
    """

    def __init__(
        self, request: GenerationRequest, prompt: Prompt, *, tokenizer: ChatTokenizer, report: Callable[[Event], None]
    ) -> None:
        """Take a request, its prompt, and what to call with each event."""
        self._request, self._tokenizer, self._report = request, tokenizer, report
        self._thinking = prompt.thinking
        self._transcript = Transcript(tokenizer.decode, thinking=prompt.thinking, raw=request.prompt is not None)
        self._sampler = Sampler(request.sampling, seed=request.seed, prompt=prompt.ids)
        self._budget = (
            ThinkingBudget(request, forced_tokens=tokenizer.forced_tokens, transcript=self._transcript)
            if request.limits_thinking
            else None
        )
        self._stop = StopFinder(request.stop)
        self._said = ["", ""]
        self.done = False
        self._records: list[Record] = []
        self._reported: list[TokenLogprob] = []
        self.prompt = prompt.ids
        self.limit = request.max_new_tokens

    @property
    def tokens(self) -> list[int]:
        """Tokens written and kept."""
        return self._transcript.tokens

    @property
    def forced(self) -> bool:
        """Whether the next token is not the model's choice."""
        return self._budget is not None and bool(self._budget.forced)

    def advance(self, logits: torch.Tensor, likeliest: int) -> bool:
        """Write the next token, and return whether it is the last.

        Args:
            logits: [vocabulary] after the last token.
            likeliest: The first token with the highest of them.
        """
        given = logits
        if self._sampler.changes_logits:
            logits = self._sampler.penalize(logits, self.tokens)
            likeliest = int(logits.argmax())
        while not self.forced:
            token = self._sampler.draw(logits, likeliest)
            decision = self._judge(token)
            if decision is TokenDecision.accept:
                return self._write(token, self._measure(given, token))
            if decision is TokenDecision.refuse:
                logits = logits.clone()
                logits[token] = -torch.inf
                likeliest = int(logits.argmax())
        return self.write_forced(given)

    def offer(self, token: int, record: Record | None) -> TokenDecision:
        """Write a token that a model elsewhere has chosen, if the limits on thinking admit it.

        The decision "replace" says that forced tokens come first, and the model's later choices are void.

        Args:
            token: What it has chosen.
            record: How likely it was, if the request asks for that.
        """
        decision = TokenDecision.replace if self.forced else self._judge(token)
        if decision is TokenDecision.accept:
            self._write(token, record)
        return decision

    def write_forced(self, logits: torch.Tensor | None = None) -> bool:
        """Write the next token that is not the model's choice, and return whether it is the last.

        Args:
            logits: Those of the model, as for `advance`; without them the token counts as certain.
        """
        assert self._budget is not None
        token = self._budget.forced.popleft()
        certain = Record(self._tokenizer.decode([token]), 0.0, ())
        return self._write(token, certain if logits is None else self._measure(logits, token))

    def _judge(self, token: int) -> TokenDecision:
        if self._budget is None:
            return TokenDecision.accept
        decision = self._budget.judge(token, ends=token in self._tokenizer.stop_ids)
        if decision is TokenDecision.replace:
            del self._records[len(self.tokens) :]
        return decision

    def _write(self, token: int, record: Record | None) -> bool:
        ended = token in self._tokenizer.stop_ids
        if record is not None and self._request.logprobs is not None:
            self._records.append(record)
        if not ended:
            self._transcript.push(token)
            if self._budget:
                self._budget.wrote()
            self._tell()
        if ended or self._stop.found:
            self._finish("stop", ended=ended)
        elif len(self.tokens) == self.limit:
            self._finish("length", ended=False)
        return self.done

    def fail(self, error: EngineError) -> None:
        """Report that no more will come, and why, unless all has come."""
        if not self.done:
            self.done = True
            self._report(error)

    def _measure(self, logits: torch.Tensor, token: int) -> Record | None:
        if self._request.logprobs is None:
            return None
        chosen, likeliest = logprobs_of(logits, token, top=self._request.logprobs)
        top = tuple(Alternative(self._tokenizer.decode([number]), value) for number, value in likeliest)
        return Record(self._tokenizer.decode([token]), chosen, top)

    def _tell(self) -> None:
        reasoning, answer = self._transcript.collect()
        answer = self._stop.push(answer)
        if reasoning or answer:
            self._emit(reasoning, answer)

    def _emit(self, reasoning: str, answer: str) -> None:
        self._said[0] += reasoning
        self._said[1] += answer
        news = self._settled(len(self.tokens))
        self._reported += news
        self._report(Delta(reasoning, answer, news))

    def _finish(self, reason: FinishReason, *, ended: bool) -> None:
        self.done = True
        self._transcript.finish()
        self._tell()
        if rest := self._stop.finish():
            self._emit("", rest)
        text = self._stop.before(self._transcript.text)
        split = split_thinking(text, self._request.mode, finished=reason == "stop", prefilled=self._thinking)
        raw = self._request.prompt is not None
        self._report(
            Completion(
                text=text,
                reasoning=self._said[0],
                answer=self._said[1],
                well_formed=reason == "stop" if raw else split.well_formed,
                prompt_tokens=len(self.prompt),
                completion_tokens=len(self.tokens) + ended,
                reasoning_tokens=self._transcript.thinking_tokens,
                finish_reason=reason,
                logprobs=self._all_logprobs(ended=ended),
            )
        )

    def _all_logprobs(self, *, ended: bool) -> tuple[TokenLogprob, ...]:
        found = (*self._reported, *self._settled(len(self.tokens)))
        if not (ended and self._records):
            return found
        text, logprob, top = self._records[-1]
        return (*found, TokenLogprob(text, logprob, self._transcript.scanner.thinking, top))

    def _settled(self, end: int) -> tuple[TokenLogprob, ...]:
        """Return the tokens before `end` that were not reported yet."""
        start = len(self._reported)
        return tuple(
            TokenLogprob(text, logprob, not self._transcript.in_answer(place), top)
            for place, (text, logprob, top) in enumerate(self._records[start:end], start=start)
        )
