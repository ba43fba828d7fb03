"""Tasks of lm-evaluation-harness, asked of our engines: for IFEval and the like, whose judges live there."""

from collections.abc import Sequence
from typing import Any

from nemo_reasoning.config_evaluation import ProtocolSettings
from nemo_reasoning.data.schema import Message, Mode
from nemo_reasoning.errors import BackendError
from nemo_reasoning.evaluation.samples import Sample
from nemo_reasoning.inference.engine import Completion, Engine, GenerationRequest


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
        temperature=sampling.temperature,
        top_p=sampling.top_p,
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
        reasoning_tokens=completion.reasoning_tokens,
        seconds=0.0,
    )
