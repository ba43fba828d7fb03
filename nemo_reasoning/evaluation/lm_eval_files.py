"""Results in the files that lm-evaluation-harness writes, for the tools that read those."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemo_reasoning.artifacts import write_json, write_text
from nemo_reasoning.evaluation.results import Measurement, Setting
from nemo_reasoning.evaluation.samples import Sample
from nemo_reasoning.evaluation.statistics import standard_error

_METRIC, _FILTER = "exact_match", "none"


def write_lm_eval(measurements: Sequence[Measurement], folder: Path, *, date: str, settings: dict[str, Any]) -> None:
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
                    results[_task(found.benchmark, setting)] = samples
        _write_model(results, folder / model, model=model, date=date, settings=settings)


def _task(benchmark: str, setting: Setting) -> str:
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
