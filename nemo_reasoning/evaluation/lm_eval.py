"""lm-evaluation-harness: its tasks asked of our engines (IFEval and the like), and results in its files."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import write_json, write_text
from nemo_reasoning.config.evaluate import ProtocolSettings
from nemo_reasoning.errors import BackendError
from nemo_reasoning.evaluation.results import BenchmarkResult, Setting
from nemo_reasoning.evaluation.samples import Sample
from nemo_reasoning.evaluation.statistics import standard_error
from nemo_reasoning.inference.engine import Engine
from nemo_reasoning.inference.request import Completion, GenerationRequest
from nemo_reasoning.reasoning.messages import Message, Mode

_METRIC, _FILTER = "exact_match", "none"


def run_task(
    engine: Engine,
    *,
    task: str,
    mode: Mode,
    budget: int | None,
    protocol: ProtocolSettings,
    seed: int,
    limit: int | None,
    include_path: str | None = None,
) -> list[Sample]:
    """Let lm-eval put a generative task to an engine and judge what it answers; thinking is kept from the judge.

    A sample is correct if the first metric of the task says so.

    Args:
        engine: The model; its chat template renders each prompt as a user turn.
        task: A task of lm-eval that generates text.
        mode: Of thinking.
        budget: Most thinking tokens.
        protocol: Token limit and sampling.
        seed: Of the sampling.
        limit: Most documents, from the first.
        include_path: Folder with further tasks.

    Raises:
        BackendError: lm-eval is not installed.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise BackendError(f"the task {task} is run by lm-eval: pip install 'lm_eval[ifeval]'") from error
    model = _engine_model(engine, mode=mode, budget=budget, protocol=protocol, seed=seed)
    found: Any = simple_evaluate(
        model=model,
        tasks=[task],
        task_manager=TaskManager(include_path=include_path),
        limit=limit,
        bootstrap_iters=0,
        random_seed=seed,
    )
    first: dict[int, Any] = {}  # a document has a sample per filter of its task
    for sample in found["samples"][task]:
        first.setdefault(sample["doc_id"], sample)
    return [_sample(sample, model.completions, task=task, mode=mode, budget=budget) for sample in first.values()]


def _engine_model(engine: Engine, *, mode: Mode, budget: int | None, protocol: ProtocolSettings, seed: int) -> Any:
    from lm_eval.api.model import LM

    class EngineModel(LM):  # type: ignore[misc]  # lm_eval has no types
        """An engine as lm-eval's model; it remembers completions by prompt."""

        def __init__(self) -> None:
            super().__init__()
            self.completions: dict[str, Completion] = {}

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            asked = [_request(one.args[0], mode, budget, protocol, seed) for one in requests]
            completions = engine.generate(asked)
            self.completions |= {one.args[0]: found for one, found in zip(requests, completions, strict=True)}
            stops = [one.args[1].get("until") or [] for one in requests]
            return [_until(found.answer, stop) for found, stop in zip(completions, stops, strict=True)]

        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[Any]:
            raise BackendError("only tasks that generate text can be asked of an engine; choose another task")

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[Any]:
            return self.loglikelihood(requests)

    return EngineModel()


def _request(prompt: str, mode: Mode, budget: int | None, protocol: ProtocolSettings, seed: int) -> GenerationRequest:
    sampling = protocol.sampling(mode)
    return GenerationRequest(
        messages=(Message("user", prompt),),
        mode=mode,
        max_new_tokens=protocol.max_tokens,
        thinking_budget=budget,
        sampling=sampling,
        seed=seed,
    )


def _until(text: str, stops: str | Sequence[str]) -> str:
    """Cut a text before the first stop, as lm-eval's own models do."""
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop)[0] if stop else text
    return text


def _sample(
    found: dict[str, Any], completions: dict[str, Completion], *, task: str, mode: Mode, budget: int | None
) -> Sample:
    prompt = found["arguments"][0][0]
    completion, metric = completions[prompt], found["metrics"][0]
    filtered = found["filtered_resps"][0]
    return Sample(
        question=str(found["doc_id"]),
        family=task,
        mode=mode,
        budget=budget,
        index=0,
        prompt=prompt,
        expected=str(found["target"]),
        extracted=str(filtered[0] if isinstance(filtered, list) else filtered),
        correct=bool(found[metric]),
        well_formed=completion.well_formed,
        truncated=completion.finish_reason == "length",
        refused=False,
        reasoning=completion.reasoning,
        answer=completion.answer,
        text=completion.text,
        completion_tokens=completion.completion_tokens,
        reasoning_tokens=completion.reasoning_tokens
        if completion.reasoning_tokens or not completion.reasoning
        else None,  # not counted
        seconds=0.0,
    )


def write_lm_eval(
    measurements: Sequence[BenchmarkResult], folder: Path, *, date: str, settings: dict[str, Any]
) -> None:
    """Write `<model>/results_<date>.json` and `<model>/samples_<task>_<date>.jsonl` for every model.

    A benchmark in a mode, with a budget, is a task of its own. The layout is that of lm-eval 0.4.

    Args:
        measurements: What was measured.
        folder: Where the models' folders go.
        date: In the form of lm-eval's file names, such as 2025-01-31T12-00-00.000000.
        settings: What was asked for, recorded as `config`.
    """
    for model in dict.fromkeys(model for found in measurements for model in found.evaluations):
        results: dict[str, Any] = {}
        for found in measurements:
            for setting in found.settings():
                samples = found.samples(model, setting)
                if samples:
                    results[_task_name(found.benchmark, setting)] = samples
        _write_model(results, folder / model, model=model, date=date, settings=settings)


def _task_name(benchmark: str, setting: Setting) -> str:
    mode, budget = setting
    return f"{benchmark}_thinking_{mode}" + ("" if budget is None else f"_{budget}")


def _write_model(
    tasks: dict[str, list[Sample]], folder: Path, *, model: str, date: str, settings: dict[str, Any]
) -> None:
    found = {
        "results": {task: _summary(task, samples) for task, samples in tasks.items()},
        "group_subtasks": {task: [] for task in tasks},
        "configs": {task: {"task": task, "output_type": "generate_until"} for task in tasks},
        "versions": {task: 1 for task in tasks},
        "n-shot": {task: 0 for task in tasks},
        "higher_is_better": {task: {_METRIC: True} for task in tasks},
        "n-samples": {task: {"original": len(samples), "effective": len(samples)} for task, samples in tasks.items()},
        "config": {"model": "nemo-reasoning", "model_args": model, **settings},
        "model_name": model,
        "model_name_sanitized": model,
        "date": date,
    }
    write_json(folder / f"results_{date}.json", found)
    for task, samples in tasks.items():
        lines = (json.dumps(_line(number, sample), ensure_ascii=False) + "\n" for number, sample in enumerate(samples))
        write_text(folder / f"samples_{task}_{date}.jsonl", "".join(lines))


def _summary(task: str, samples: list[Sample]) -> dict[str, Any]:
    rights = [float(sample.correct) for sample in samples]
    return {
        "alias": task,
        f"{_METRIC},{_FILTER}": sum(rights) / len(rights),
        f"{_METRIC}_stderr,{_FILTER}": standard_error(rights) if len(rights) > 1 else "N/A",
    }


def _line(number: int, sample: Sample) -> dict[str, Any]:
    return {
        "doc_id": number,
        "doc": {"id": sample.question, "subject": sample.family, "sample": sample.index},
        "target": sample.expected,
        "arguments": {"gen_args_0": {"arg_0": sample.prompt, "arg_1": {}}},
        "resps": [[sample.text]],
        "filtered_resps": [sample.extracted or ""],
        "filter": _FILTER,
        "metrics": [_METRIC],
        "doc_hash": _hash(sample.question),
        "prompt_hash": _hash(sample.prompt),
        "target_hash": _hash(sample.expected),
        _METRIC: float(sample.correct),
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
