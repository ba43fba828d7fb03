"""Spend more tokens on a question: vote, choose the best of several answers, or think longer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nemo_reasoning.answers import answers_equal
from nemo_reasoning.errors import EngineError
from nemo_reasoning.inference.engine import Engine
from nemo_reasoning.inference.request import Completion, GenerationRequest

Extract = Callable[[str], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """An answer that took several completions.

    Attributes:
        answer: The one chosen; None if no completion states any.
        completion: One that gives it.
        votes: Completions behind each answer, the chosen one first; those without an answer are not counted.
        samples: Completions generated.
        tokens: Tokens generated for all of them.
    """

    answer: str | None
    completion: Completion
    votes: dict[str, int]
    samples: int
    tokens: int


def vote(engine: Engine, request: GenerationRequest, *, n: int, extract: Extract) -> Scaled:
    """Return the answer most of up to `n` completions agree on (self-consistency, arXiv 2203.11171).

    Completions are drawn in waves, each as large as the least that could decide the vote; it ends when the
    rest could not change it. Answers are the same if `answers_equal` says so; the earlier one wins a tie.

    Args:
        engine: What answers.
        request: The question, with a temperature above 0.
        n: Most completions; each has the next seed.
        extract: Finds the final answer in the text after the thinking.

    Raises:
        EngineError: `n` is below 1, or the temperature is 0.
    """
    requests = _draws(request, n)
    done: list[Completion] = []
    groups: list[list[int]] = []
    while len(done) < n and (wave := _deciding(groups, left=n - len(done))):
        for completion in engine.generate(requests[len(done) : len(done) + wave]):
            _count(groups, len(done), completion, done, extract)
            done.append(completion)
    ranked = sorted(groups, key=len, reverse=True)
    votes = {_answer(done[group[0]], extract) or "": len(group) for group in ranked}
    chosen = done[ranked[0][0]] if ranked else done[0]
    return _scaled(chosen, votes, done, extract)


def _deciding(groups: list[list[int]], *, left: int) -> int:
    """Return how many votes could decide, if all went to the leader; 0 if it is decided."""
    first, second = sorted([*map(len, groups), 0, 0], reverse=True)[:2]
    return 0 if first > second + left else min(left, (left - first + second) // 2 + 1)


def _count(
    groups: list[list[int]], number: int, completion: Completion, done: list[Completion], extract: Extract
) -> None:
    answer = _answer(completion, extract)
    if answer is None:
        return
    for group in groups:
        if answers_equal(answer, _answer(done[group[0]], extract) or ""):
            group.append(number)
            return
    groups.append([number])


def mean_logprob(completion: Completion) -> float:
    """Score a completion by the mean log-probability of its tokens."""
    return sum(entry.logprob for entry in completion.logprobs) / max(len(completion.logprobs), 1)


def best_of(
    engine: Engine,
    request: GenerationRequest,
    *,
    n: int,
    extract: Extract,
    score: Callable[[Completion], float] = mean_logprob,
) -> Scaled:
    """Return the answer of the completion with the highest score.

    Args:
        engine: What answers.
        request: The question, with a temperature above 0.
        n: Completions; each has the next seed.
        extract: Finds the final answer in the text after the thinking.
        score: What is best: `mean_logprob`, or a verifier of one's own.

    Raises:
        EngineError: `n` is below 1, or the temperature is 0.
    """
    asked = [replace(draw, logprobs=draw.logprobs or 0) for draw in _draws(request, n)]
    done = engine.generate(asked)
    chosen = max(done, key=lambda completion: (completion.finish_reason == "stop", score(completion)))
    answer = _answer(chosen, extract)
    return _scaled(chosen, {} if answer is None else {answer: 1}, done, extract)


def extend(engine: Engine, request: GenerationRequest, *, thinking: Sequence[int], extract: Extract) -> Scaled:
    """Let the model think longer and longer until two answers in a row agree (budget forcing, arXiv 2501.19393).

    Args:
        engine: What answers.
        request: The question, with mode on; a budget it has is kept.
        thinking: Least tokens of thinking of each attempt, ascending.
        extract: Finds the final answer in the text after the thinking.

    Raises:
        EngineError: There is no attempt, or one exceeds the budget.
    """
    if not thinking:
        raise EngineError("thinking is empty; give the least tokens of each attempt")
    attempts = [replace(request, min_thinking=least) for least in thinking]  # refused before any is paid for
    done: list[Completion] = []
    votes: dict[str, int] = {}
    for attempt in attempts:
        done += engine.generate([attempt])
        answer = _answer(done[-1], extract)
        before = _answer(done[-2], extract) if len(done) > 1 else None
        if answer is not None and before is not None and answers_equal(answer, before):
            votes = {answer: 2}
            break
        votes = {} if answer is None else {answer: 1}
    return _scaled(done[-1], votes, done, extract)


def _draws(request: GenerationRequest, n: int) -> list[GenerationRequest]:
    if n < 1:
        raise EngineError(f"n={n}; give 1 or more")
    if n > 1 and request.sampling.temperature == 0:
        raise EngineError(f"n={n} completions at temperature 0 are all the same; raise the temperature")
    return request.choices(n)


def _answer(completion: Completion, extract: Extract) -> str | None:
    """Return what a completion answers; one that was cut at its limit answers nothing."""
    return extract(completion.answer) if completion.finish_reason == "stop" else None


def _scaled(chosen: Completion, votes: dict[str, int], done: Sequence[Completion], extract: Extract) -> Scaled:
    return Scaled(
        answer=_answer(chosen, extract),
        completion=chosen,
        votes=votes,
        samples=len(done),
        tokens=sum(completion.completion_tokens for completion in done),
    )
