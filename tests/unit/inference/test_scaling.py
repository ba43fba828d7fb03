"""Votes, best of several, and thinking longer, with an engine that says what it is told to."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_reasoning.answers import extract_final_answer
from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference.request import Completion, GenerationRequest, TokenLogprob
from nemo_reasoning.inference.scaling import best_of, extend, mean_logprob, vote
from nemo_reasoning.reasoning.messages import Message
from nemo_reasoning.reasoning.sampling import Sampling

extract = partial(extract_final_answer, last_number=True)
QUESTION = GenerationRequest(
    messages=(Message("user", "?"),), mode="on", max_new_tokens=99, sampling=Sampling(temperature=1.0), seed=5
)


class Scripted:
    """Answers by seed, or by the least thinking asked for; remembers what it was asked."""

    def __init__(self, answers: Sequence[str], *, by_thinking: bool = False) -> None:
        self._answers, self._by_thinking = answers, by_thinking
        self.waves: list[int] = []
        self.asked: list[GenerationRequest] = []

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        self.waves.append(len(requests))
        self.asked += requests
        return [self._complete(request) for request in requests]

    def _complete(self, request: GenerationRequest) -> Completion:
        place = request.min_thinking // 10 if self._by_thinking else request.seed - QUESTION.seed
        answer = self._answers[place]
        told = (TokenLogprob(answer, -float(place), False, ()),) if request.logprobs is not None else ()
        return Completion(
            text=answer,
            reasoning="",
            answer=answer,
            well_formed=True,
            prompt_tokens=1,
            completion_tokens=10 + place,
            reasoning_tokens=0,
            finish_reason="stop",
            logprobs=told,
        )


def test_the_vote_counts_equal_answers_and_stops_when_it_is_decided() -> None:
    engine = Scripted(["The answer is 7.", "7.0", "8", "It is 7", "8", "7", "9", "9"])
    found = vote(engine, QUESTION, n=8, extract=extract)
    assert (found.answer, found.votes, found.samples) == ("7", {"7": 4, "8": 2, "9": 1}, 7)
    assert engine.waves == [5, 2]  # five that agree would decide, and so would two more for the leader at 3 to 2
    assert found.tokens == sum(range(10, 17))
    assert found.completion.answer == "The answer is 7."
    assert [request.seed for request in engine.asked] == list(range(5, 12))


@given(answers=st.lists(st.sampled_from(["1", "2", "3", "none"]), min_size=1, max_size=12))
def test_stopping_early_changes_no_result(answers: list[str]) -> None:
    found = vote(Scripted(answers), QUESTION, n=len(answers), extract=extract)
    counts = {answer: answers.count(answer) for answer in dict.fromkeys(answers) if answer != "none"}
    most = max(counts.values(), default=0)
    winners = [answer for answer, count in counts.items() if count == most]
    assert found.answer == (winners[0] if winners else None)
    assert sum(found.votes.values()) <= found.samples <= len(answers)


def test_an_agreement_needs_half_of_the_samples() -> None:
    assert vote(Scripted(["1"] * 64), QUESTION, n=64, extract=extract).samples == 33


def test_the_best_has_the_highest_score() -> None:
    engine = Scripted(["1", "2", "3"])
    assert best_of(engine, QUESTION, n=3, extract=extract).answer == "1"  # the mean log-probabilities are 0, -1, -2
    verifier = best_of(engine, QUESTION, n=3, extract=extract, score=lambda completion: float(completion.answer == "2"))
    assert (verifier.answer, verifier.samples, verifier.tokens) == ("2", 3, 33)
    assert mean_logprob(verifier.completion) == -1.0


def test_thinking_longer_ends_when_two_answers_agree() -> None:
    engine = Scripted(["1", "2", "2", "3"], by_thinking=True)
    found = extend(engine, QUESTION, thinking=[0, 10, 20, 30], extract=extract)
    assert (found.answer, found.votes, found.samples, found.tokens) == ("2", {"2": 2}, 3, 33)
    never = extend(Scripted(["1", "2"], by_thinking=True), QUESTION, thinking=[0, 10], extract=extract)
    assert (never.answer, never.votes) == ("2", {"2": 1})


def test_what_cannot_be_scaled_is_refused() -> None:
    engine = Scripted(["1"])
    cold = GenerationRequest(messages=QUESTION.messages, mode="on", max_new_tokens=9)
    with pytest.raises(EngineError, match="raise the temperature"):
        vote(engine, cold, n=2, extract=extract)
    with pytest.raises(EngineError, match="n=0"):
        best_of(engine, QUESTION, n=0, extract=extract)
    with pytest.raises(EngineError, match="thinking is empty"):
        extend(engine, QUESTION, thinking=[], extract=extract)
    with pytest.raises(EngineError, match="thinking_budget=5"):
        extend(engine, replace(QUESTION, thinking_budget=5), thinking=[0, 10], extract=extract)
    assert engine.asked == []
