"""One request while it is served: picks its tokens, keeps its limits, and reports its text."""

import itertools
import logging
from collections.abc import Callable
from typing import NamedTuple

import torch

from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference.detokenizer import Transcript
from nemo_reasoning.inference.echo import PromptEcho
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

LOGGER = logging.getLogger(__name__)


class Record(NamedTuple):
    """How likely a token was: its log-probability, and the likeliest in its place."""

    logprob: float
    top: tuple[Alternative, ...]


class TokenSequence:
    """Writes the completion of a request, a token at a time.

    Attributes:
        prompt: Tokens to continue.
        tokens: Tokens written and kept; the last one may take the place of some that were taken back.
        limit: Most tokens to write.
        echo: Reads along the prompt, if that was asked for.
        done: Whether all has been reported.
    """

    def __init__(
        self, request: GenerationRequest, prompt: Prompt, *, tokenizer: ChatTokenizer, report: Callable[[Event], None]
    ) -> None:
        """Take a request, its prompt, and what to call with each event."""
        self._request, self._tokenizer, self._report = request, tokenizer, report
        bare = request.prompt is not None
        self._transcript = Transcript(tokenizer.decode, prefix=prompt.prefix, tags=not bare, stop=request.stop)
        self._sampler = Sampler(request.sampling, seed=request.seed, prompt=prompt.ids)
        self._budget = (
            None
            if bare
            else ThinkingBudget(request, forced_tokens=tokenizer.forced_tokens, transcript=self._transcript)
        )
        self._grammar = None if request.schema is None else tokenizer.grammar(request.schema)
        self._banned: dict[int, list[int]] = {}  # by the number of tokens before their place
        self._undecided: torch.Tensor | None = None
        self.done = False
        self._records: list[Record] = []
        self._reported: list[TokenLogprob] = []
        self.prompt = prompt.ids
        self.limit = request.max_new_tokens
        asked = request.logprobs if request.echo else None
        self.echo = None if asked is None else PromptEcho(prompt.ids, decode=tokenizer.decode, top=asked)

    @property
    def tokens(self) -> list[int]:
        """Tokens written and kept."""
        return self._transcript.tokens

    @property
    def forced(self) -> bool:
        """Whether the next token is not the model's choice."""
        return self._budget is not None and bool(self._budget.forced)

    @property
    def banned(self) -> list[int]:
        """Tokens that must not come next."""
        return self._banned.get(len(self.tokens), [])

    def advance(self, logits: torch.Tensor, likeliest: int) -> bool:
        """Write the next token, and return whether it is the last.

        Args:
            logits: [vocabulary] after the last token.
            likeliest: The first token with the highest of them.
        """
        if self._budget is not None and self._budget.undecided:
            self._undecided = logits.clone()
        while not self.forced:
            scores = self._scores(logits)
            token = self._sampler.draw(scores, likeliest if scores is logits else int(scores.argmax()))
            decision = self._judge(token)
            if decision is TokenDecision.accept:
                if self._grammar is not None and not self._transcript.parser.thinking:
                    self._grammar.accept(token)
                return self._write(token, self._measure(logits, token))
            if decision is TokenDecision.retract and self._undecided is not None:
                logits = self._undecided
        return self.write_forced(logits)

    def _scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits with biases and penalties, without tokens that must not come next or fit no given form."""
        if self._request.logit_bias:
            tokens, biases = zip(*self._request.logit_bias, strict=True)
            places = torch.tensor(tokens, device=logits.device)
            logits = logits.index_add(0, places, torch.tensor(biases, device=logits.device, dtype=logits.dtype))
        if self._sampler.changes_logits:
            logits = self._sampler.penalize(logits, self.tokens)
        if banned := self.banned:
            logits = logits.index_fill(0, torch.tensor(banned, device=logits.device), -torch.inf)
        if self._grammar is not None and not self._transcript.parser.thinking:
            logits = self._grammar.mask(logits)
        return logits

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
        return self._write(token, Record(0.0, ()) if logits is None else self._measure(logits, token))

    def _judge(self, token: int) -> TokenDecision:
        if self._budget is None:
            return TokenDecision.accept
        decision = self._budget.judge(token, ends=token in self._tokenizer.stop_ids)
        if decision is TokenDecision.retract:
            first = self._transcript.retract()
            token = token if first is None else first  # a tag that the prompt has begun cannot be taken back
        if decision in (TokenDecision.refuse, TokenDecision.retract):
            self._banned.setdefault(len(self.tokens), []).append(token)
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
        if ended or self._transcript.stopped or (self._grammar is not None and self._grammar.complete):
            self._finish("stop", ended=ended)
        elif len(self.tokens) == self.limit:
            self._finish("length", ended=False)
        return self.done

    def fail(self, error: EngineError) -> None:
        """Report that no more will come, and why, unless all has come."""
        if self.done:
            return
        self.done = True
        try:
            self._report(error)
        except Exception:  # of the caller's, and the other requests have to go on
            LOGGER.exception("a request failed (%s), and what it reports to failed too", error)

    def _measure(self, logits: torch.Tensor, token: int) -> Record | None:
        if self._request.logprobs is None:
            return None
        chosen, likeliest = logprobs_of(logits, token, top=self._request.logprobs)
        top = tuple(Alternative(self._tokenizer.decode([number]), value) for number, value in likeliest)
        return Record(chosen, top)

    def _tell(self) -> None:
        reasoning, answer = self._transcript.collect()
        if reasoning or answer:
            news = self._news()
            self._reported += news
            self._report(Delta(reasoning, answer, news))

    def _finish(self, reason: FinishReason, *, ended: bool) -> None:
        self.done = True
        self._transcript.finish()
        self._tell()
        if rest := tuple(map(self._entry, self._unreported)):  # they add nothing to the text
            self._reported += rest
            self._report(Delta("", "", rest))
        self._report(
            Completion(
                text=self._transcript.text,
                reasoning=self._transcript.said.reasoning,
                answer=self._transcript.said.answer,
                well_formed=reason == "stop" and self._well_formed,
                prompt_tokens=len(self.prompt),
                completion_tokens=len(self.tokens) + ended,
                reasoning_tokens=self._transcript.thinking_tokens,
                finish_reason=reason,
                thinking_cut=self._budget is not None and self._budget.closed,
                logprobs=self._all_logprobs(ended=ended),
                echo=self.echo.entries if self.echo else (),
            )
        )

    @property
    def _well_formed(self) -> bool:
        if self._request.prompt is not None:
            return True
        thought = bool(self._transcript.parser.block_start)
        return thought == (self._request.mode == "on") and bool(self._transcript.said.answer.strip())

    def _all_logprobs(self, *, ended: bool) -> tuple[TokenLogprob, ...]:
        if not (ended and self._records):
            return tuple(self._reported)
        return (*self._reported, TokenLogprob("", self._records[-1].logprob, "end", self._records[-1].top))

    def _news(self) -> tuple[TokenLogprob, ...]:
        """Return the tokens whose text is said, and that were not reported yet."""
        return tuple(map(self._entry, itertools.takewhile(self._transcript.is_said, self._unreported)))

    @property
    def _unreported(self) -> range:
        return range(len(self._reported), min(len(self._records), len(self.tokens)))

    def _entry(self, number: int) -> TokenLogprob:
        part, text = self._transcript.part(number)
        record = self._records[number]
        return TokenLogprob(text, record.logprob, part, record.top)
