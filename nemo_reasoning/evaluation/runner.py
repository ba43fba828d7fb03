"""Ask a model questions in batches, and keep every answer as soon as it is there."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from nemo_reasoning.artifacts import write_json
from nemo_reasoning.config.evaluate import ProtocolName, ProtocolSettings
from nemo_reasoning.data.builtin import Problem
from nemo_reasoning.errors import DataError, EngineError
from nemo_reasoning.evaluation.benchmarks.load import Benchmark, as_question
from nemo_reasoning.evaluation.benchmarks.question import Question
from nemo_reasoning.evaluation.prompts import judge, render_prompt
from nemo_reasoning.evaluation.samples import Evaluation, Key, Sample, SampleLog
from nemo_reasoning.inference.engine import Engine
from nemo_reasoning.inference.request import Completion, Delta, Event, GenerationRequest
from nemo_reasoning.reasoning.messages import Message, Mode
from nemo_reasoning.reasoning.sampling import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """One sample to take.

    Attributes:
        question: What is asked.
        prompt: The user turn.
        mode: Whether the model is to think.
        budget: Most thinking tokens; None for no limit.
        index: Of the sample among those of the question.
    """

    question: Question
    prompt: str
    mode: Mode
    budget: int | None
    index: int

    @property
    def key(self) -> Key:
        """As `Sample.key`."""
        return self.question.id, self.mode, self.budget, self.index

    def seed(self, seed: int) -> int:
        """Return a seed of its own, the same for every model that is asked."""
        digest = hashlib.sha256(f"{seed}:{self.key}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1


def sample_requests(
    benchmark: Benchmark,
    *,
    protocol: ProtocolName,
    template: str,
    modes: Sequence[Mode],
    budgets: Sequence[int | None],
    samples: int,
) -> list[SampleRequest]:
    """Return every sample to take of a benchmark; a mode without thinking has no budget.

    Args:
        benchmark: The questions.
        protocol: How they are put.
        template: See `render_prompt`.
        modes: Of thinking.
        budgets: Most thinking tokens, each measured for itself.
        samples: Of each question in each mode and budget.
    """
    prompts = [
        render_prompt(question, protocol=protocol, template=template, examples=benchmark.examples)
        for question in benchmark.questions
    ]
    return [
        SampleRequest(question=question, prompt=prompt, mode=mode, budget=budget, index=index)
        for mode in modes
        for budget in (budgets if mode == "on" else (None,))
        for question, prompt in zip(benchmark.questions, prompts, strict=True)
        for index in range(samples)
    ]


def collect_samples(
    open_engine: Callable[[], Engine],
    requests: Sequence[SampleRequest],
    *,
    protocol: ProtocolSettings,
    seed: int,
    log: Path,
    identity: dict[str, Any],
    progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Take every sample that the log does not hold yet, and return all of them in the order of `requests`.

    The engine gets all requests at once, and each answer is written when it is there. So a killed evaluation repeats
    no answer that it kept, and ends as an uninterrupted one.

    Args:
        open_engine: Returns the model; called only if something is left to ask.
        requests: From `sample_requests`.
        protocol: Token limit, sampling, and how answers are found.
        seed: Of the sampling.
        log: JSON Lines file of the samples; `identity` stands beside it, with the ending .json.
        identity: What all samples of a log have in common: model, prompt, protocol and the like.
        progress: Called with the number of samples that are there, after each write.

    Raises:
        DataError: The log belongs to another identity.
        EngineError: The engine cannot serve a request.
    """
    claim(log, identity)
    kept = SampleLog(log)
    pending = [one for one in requests if one.key not in kept.samples]
    done = len(requests) - len(pending)
    for sample in _answered(open_engine, pending, protocol=protocol, seed=seed):
        kept.append([sample])
        done += 1
        progress(done)
    return Evaluation(tuple(kept.samples[one.key] for one in requests))


def claim(log: Path, identity: dict[str, Any]) -> None:
    """Record beside a log what its samples have in common.

    Raises:
        DataError: It belongs to another identity.
    """
    path, identity = log.with_suffix(".json"), json.loads(json.dumps(identity))
    if not path.is_file():
        write_json(path, identity)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key in {**before, **identity} if before.get(key) != identity.get(key)]
    if changed:
        listed = "; ".join(f"{key} was {before.get(key)}, is {identity.get(key)}" for key in changed)
        raise DataError(f"{log} belongs to another evaluation: {listed}. Give another output_dir=, or delete it")


def _answered(
    open_engine: Callable[[], Engine], requests: Sequence[SampleRequest], *, protocol: ProtocolSettings, seed: int
) -> Iterator[Sample]:
    """Yield the samples one by one as they are finished."""
    if not requests:
        return
    engine, ends = open_engine(), SimpleQueue[tuple[SampleRequest, int, Completion | EngineError]]()
    generations = []
    try:
        for one in requests:
            request = _request(engine, one, protocol, seed)
            keep = partial(_keep_end, ends, one, request.max_new_tokens)
            generations.append(engine.submit(request, keep))
        began = time.perf_counter()
        for _ in requests:
            one, limit, end = ends.get()
            if isinstance(end, EngineError):
                raise end
            now = time.perf_counter()
            yield judge(
                one.question,
                end,
                protocol=protocol.name,
                prompt=one.prompt,
                mode=one.mode,
                budget=one.budget,
                index=one.index,
                limit=limit,
                seconds=now - began,
            )
            began = now
    finally:
        for generation in generations:
            generation.cancel()


def _keep_end(
    ends: "SimpleQueue[tuple[SampleRequest, int, Completion | EngineError]]",
    one: SampleRequest,
    limit: int,
    event: Event,
) -> None:
    if not isinstance(event, Delta):
        ends.put((one, limit, event))


def _request(engine: Engine, one: SampleRequest, protocol: ProtocolSettings, seed: int) -> GenerationRequest:
    """Return the request, its token limit lowered to what the model's context leaves behind the prompt."""
    request = GenerationRequest(
        messages=(Message("user", one.prompt),),
        mode=one.mode,
        max_new_tokens=protocol.max_tokens,
        thinking_budget=one.budget,
        sampling=protocol.sampling(one.mode),
        seed=one.seed(seed),
    )
    return replace(request, max_new_tokens=min(protocol.max_tokens, engine.max_new_tokens_for(request)))


def evaluate_problems(
    engine: Engine,
    problems: Sequence[Problem],
    modes: Sequence[Mode] = ("on", "off"),
    *,
    max_new_tokens: int,
) -> Evaluation:
    """Let a model answer every built-in problem in every mode, greedily.

    Args:
        engine: The model.
        problems: With answers that are numbers: a text that states no answer counts by its last number,
            because a model that never learnt the sentence may still have computed the value.
        modes: Of thinking.
        max_new_tokens: Bound on each completion, thinking included.

    Raises:
        DataError: `problems` is empty.
    """
    if not problems:
        raise DataError("there are no problems to evaluate; raise their count")
    greedy = Sampling(temperature=0.0, top_p=1.0)
    protocol = ProtocolSettings(
        name=ProtocolName.ours, max_tokens=max_new_tokens, thinking_on=greedy, thinking_off=greedy
    )
    requests = [
        SampleRequest(question=question, prompt=question.text, mode=mode, budget=None, index=0)
        for mode in modes
        for question in map(as_question, problems)
    ]
    samples = {sample.key: sample for sample in _answered(lambda: engine, requests, protocol=protocol, seed=0)}
    return Evaluation(tuple(samples[one.key] for one in requests))
