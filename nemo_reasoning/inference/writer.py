"""One request while it is served: picks its tokens, keeps its limits, and reports its text."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference.engine import (
    Alternative,
    Completion,
    Delta,
    Event,
    FinishReason,
    GenerationRequest,
    TokenLogprob,
)
from nemo_reasoning.inference.parsing import StopFinder
from nemo_reasoning.inference.sampling import Sampler, logprobs_of
from nemo_reasoning.inference.steering import Steering, Verdict
from nemo_reasoning.inference.thinking import split_thinking
from nemo_reasoning.inference.transcript import Transcript
from nemo_reasoning.inference.voice import Prompt, Voice


class _Record(NamedTuple):
    text: str
    logprob: float
    top: tuple[Alternative, ...]


class Writer:
    """Writes the completion of a request, a token at a time.

    Attributes:
        prompt: Tokens to continue.
        tokens: Tokens written and kept; the last one may take the place of some that were taken back.
        limit: Most tokens to write.
    """

    def __init__(
        self, request: GenerationRequest, prompt: Prompt, *, voice: Voice, report: Callable[[Event], None]
    ) -> None:
        """Take a request, its prompt, and what to call with each event."""
        self._request, self._voice, self._report = request, voice, report
        self._thinking = prompt.thinking
        self._transcript = Transcript(voice.decode, thinking=prompt.thinking, raw=request.prompt is not None)
        greedy = request.temperature == 0
        self._sampler = (
            None if greedy else Sampler(temperature=request.temperature, top_p=request.top_p, seed=request.seed)
        )
        self._steering = (
            Steering(request, phrases=voice.phrases, transcript=self._transcript) if request.steered else None
        )
        self._stop = StopFinder(request.stop)
        self._said = ["", ""]
        self._done = False
        self._records: list[_Record] = []
        self._reported: list[TokenLogprob] = []
        self.prompt = prompt.ids
        self.limit = request.max_new_tokens

    @property
    def tokens(self) -> list[int]:
        """Tokens written and kept."""
        return self._transcript.tokens

    def advance(self, logits: torch.Tensor, likeliest: int) -> bool:
        """Write the next token, and return whether it is the last.

        Args:
            logits: [vocabulary] after the last token.
            likeliest: The first token with the highest of them.
        """
        token = self._pick(logits, likeliest)
        ended = token in self._voice.stop_ids
        if self._request.logprobs is not None:
            self._record(logits, token)
        if not ended:
            self._transcript.push(token)
            if self._steering:
                self._steering.wrote()
            self._tell()
        if ended or self._stop.found:
            self._finish("stop", ended=ended)
        elif len(self.tokens) == self.limit:
            self._finish("length", ended=False)
        else:
            return False
        return True

    def fail(self, error: EngineError) -> None:
        """Report that no more will come, and why, unless all has come."""
        if not self._done:
            self._done = True
            self._report(error)

    def _pick(self, logits: torch.Tensor, likeliest: int) -> int:
        steering = self._steering
        if steering is None:
            return self._choose(logits, likeliest)
        while not steering.forced:
            token = self._choose(logits, likeliest)
            verdict = steering.judge(token, ends=token in self._voice.stop_ids)
            if verdict is Verdict.accept:
                return token
            if verdict is Verdict.refuse:
                logits = logits.clone()
                logits[token] = -torch.inf
                likeliest = int(logits.argmax())
        del self._records[len(self.tokens) :]
        return steering.forced.popleft()

    def _choose(self, logits: torch.Tensor, likeliest: int) -> int:
        return likeliest if self._sampler is None else self._sampler.draw(logits)

    def _record(self, logits: torch.Tensor, token: int) -> None:
        chosen, likeliest = logprobs_of(logits, token, top=self._request.logprobs or 0)
        top = tuple(Alternative(self._voice.decode([number]), value) for number, value in likeliest)
        self._records.append(_Record(self._voice.decode([token]), chosen, top))

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
        self._done = True
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
