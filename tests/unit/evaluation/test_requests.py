"""Questions are put as the protocol says, batched, and never asked twice."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted import ScriptedEngine
from settings_of import evaluate_settings, gold

from nemo_reasoning.config.evaluate import EvaluateSettings
from nemo_reasoning.errors import ConfigError, DataError, EngineError
from nemo_reasoning.evaluation.benchmarks.load import load_benchmark
from nemo_reasoning.evaluation.runner import SampleRequest, collect_samples, sample_requests
from nemo_reasoning.evaluation.samples import Evaluation, limits_not_kept
from nemo_reasoning.evaluation.scores import score
from nemo_reasoning.inference.engine import Generation, Report
from nemo_reasoning.inference.request import Delta, GenerationRequest
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.tags import with_thinking


class MortalEngine(ScriptedEngine):
    """Reports the completions, the last one first, and dies after some of them; its context leaves 99 tokens."""

    def __init__(self, script: Any, *, lives: int) -> None:
        super().__init__(script)
        self.lives, self.cancelled = lives, 0
        self.reports: list[tuple[GenerationRequest, Report]] = []

    def submit(self, request: GenerationRequest, report: Report) -> Generation:
        self.reports.append((request, report))
        report(Delta("a", "piece"))
        if len(self.reports) == 48:
            for number, (one, tell) in enumerate(reversed(self.reports)):
                tell(self._recite(one)) if number < self.lives else tell(EngineError("died"))
        return Generation(self._count)

    def _count(self) -> None:
        self.cancelled += 1

    def max_new_tokens_for(self, request: GenerationRequest) -> int:
        return 99


def asks_of(settings: EvaluateSettings, name: str = "mmlu") -> list[SampleRequest]:
    one = settings.benchmark[name]
    nvidia = settings.protocol.name.value == "nvidia"
    benchmark = load_benchmark(name, one, seed=settings.seed, limit=settings.limit, as_nvidia=nvidia)
    return sample_requests(
        benchmark,
        protocol=settings.protocol.name,
        template=one.prompt,
        modes=[mode.value for mode in settings.reasoning],
        budgets=settings.budget or [None],
        samples=settings.samples,
    )


def run(engine: Any, settings: EvaluateSettings, log: Path, **changes: Any) -> Evaluation:
    options = {"seed": 0, "identity": {"model": "m"}, "protocol": settings.protocol, **changes}
    return collect_samples(lambda: engine, asks_of(settings), log=log, **options)


def scripted(settings: EvaluateSettings, **options: Any) -> Any:
    answers = gold(settings, **options)

    def script(prompt: str, mode: Mode) -> str:
        answer = next(answer for text, answer in answers.items() if text in prompt)
        final = f"The final answer is {answer}."
        return with_thinking("hm", final) if mode == "on" else final

    return script


def test_a_question_is_asked_with_its_choices() -> None:
    prompt = next(one.prompt for one in asks_of(evaluate_settings(["mmlu"])) if "capital of France" in one.prompt)
    assert prompt == (
        "Which of these is the capital of France?\n\nA. Lyon\nB. Paris\nC. Nice\nD. Lille\n\n"
        "End with: The final answer is X, where X is one of A, B, C or D."
    )


def test_examples_stand_in_front_with_their_answers() -> None:
    settings = evaluate_settings(["mmlu"], "benchmark.mmlu.few_shot=1")
    settings.benchmark["mmlu"].prompt = "{question}\n{choices}\nAnswer:"
    prompt = asks_of(settings)[-1].prompt
    example, question = prompt.split("\n\n")
    assert example.startswith("Which of these countries lies in South America?\nA. Brazil\n")
    assert example.endswith("\nAnswer: A")
    assert question.endswith("\nAnswer:")
    with pytest.raises(ConfigError, match="other braces twice"):
        asks_of(evaluate_settings(["mmlu"], 'benchmark.mmlu.prompt="{question} {letter}"'))


def test_nvidias_prompt_is_word_for_word_theirs() -> None:
    settings = evaluate_settings(["gpqa_main"], "protocol=nvidia")
    assert settings.protocol.max_tokens == 2048
    first = asks_of(settings, "gpqa_main")[0]
    a, b, c, d = first.question.choices
    assert first.prompt == (
        "Given the following question and four candidate answers (A, B, C and D), choose the best answer.\n"
        f"        Question: {first.question.text} A. {a} B. {b} C. {c} D. {d}\n"
        "        For simple problems, directly provide the answer with minimal explanation. For complex problems, "
        "use step-by-step format. Always conclude with: The final answer is [the_answer_letter], where the "
        "[the_answer_letter] is one of A, B, C or D."
    )
    with pytest.raises(ConfigError, match="one of four letters"):
        asks_of(evaluate_settings(["gsm8k"], "protocol=nvidia"), "gsm8k")


@pytest.mark.parametrize(("protocol", "accuracy"), [("ours", 1.0), ("nvidia", 0.0)])
def test_nvidias_protocol_takes_the_first_letter_even_while_thinking(
    tmp_path: Path, protocol: str, accuracy: float
) -> None:
    settings = evaluate_settings(["mmlu"], f"protocol={protocol}", "reasoning=[on]")
    right = scripted(settings, as_nvidia=protocol == "nvidia")

    def script(prompt: str, mode: Mode) -> str:
        wrong = "B" if right(prompt, "off") == "The final answer is A." else "A"
        return right(prompt, mode).replace("hm", f"The final answer is {wrong}, no wait.")

    evaluation = run(ScriptedEngine(script), settings, tmp_path / "mmlu.jsonl")
    assert score(evaluation.of("on")).accuracy == accuracy


def test_modes_budgets_and_samples_are_all_asked(tmp_path: Path) -> None:
    settings = evaluate_settings(["mmlu"], "budget=[0,7]", "samples=2", "limit=3")
    engine = ScriptedEngine(scripted(settings))
    evaluation = run(engine, settings, tmp_path / "mmlu.jsonl")
    asked = {(request.mode, request.thinking_budget, request.sampling.temperature) for request in engine.asked}
    assert asked == {("on", 0, 0.6), ("on", 7, 0.6), ("off", None, 0.0)}
    assert len(evaluation.samples) == len(engine.asked) == 3 * 3 * 2
    assert len({request.seed for request in engine.asked}) == 18
    assert {sample.budget for sample in evaluation.of("on")} == {0, 7}


@pytest.mark.parametrize("lives", [0, 1, 29])
def test_a_killed_evaluation_goes_on_where_it_was(tmp_path: Path, lives: int) -> None:
    settings = evaluate_settings(["mmlu"], "protocol.max_tokens=99")
    script = scripted(settings)
    whole = run(ScriptedEngine(script), settings, tmp_path / "whole.jsonl")
    log = tmp_path / "mmlu.jsonl"
    mortal = MortalEngine(script, lives=lives)
    with pytest.raises(EngineError, match="died"):
        run(mortal, settings, log)
    assert len(log.read_text().splitlines()) == lives if lives else not log.exists()
    assert mortal.cancelled == 48
    if lives:
        with log.open("ab") as file:
            file.write(b'{"question": "half a li')
    second = ScriptedEngine(script)
    assert run(second, settings, log) == whole
    assert len(second.asked) == 48 - lives
    third = ScriptedEngine(script)
    assert run(third, settings, log) == whole
    assert third.asked == []
    assert set(Evaluation.load(log).samples) == set(whole.samples)


class ShortEngine(ScriptedEngine):
    """Has a context that leaves 50 tokens."""

    def max_new_tokens_for(self, request: GenerationRequest) -> int:
        return 50


def test_limits_are_lowered_to_the_context_and_said(tmp_path: Path) -> None:
    settings = evaluate_settings(["mmlu"], "budget=[1]", "reasoning=[on]", "limit=3")
    engine = ShortEngine(scripted(settings))
    found = run(engine, settings, tmp_path / "mmlu.jsonl")
    assert {request.max_new_tokens for request in engine.asked} == {50}
    lowered, over = limits_not_kept(found.samples, settings.protocol.max_tokens)
    assert "3 of 3 answers had less than protocol.max_tokens=16384" in lowered
    assert "50 to 50 tokens" in lowered
    assert "3 of 3 answers thought longer than their budget" in over  # the script keeps none
    assert score(found.of("on")).over_budget == 3
    uncounted = [replace(sample, reasoning_tokens=None) for sample in found.samples]
    assert "not known" in limits_not_kept(uncounted, 50)[0]
    thinking_off = [replace(sample, mode="off", budget=None) for sample in found.samples]
    assert "3 of 3 answers without thinking thought" in limits_not_kept(thinking_off, 50)[0]
    assert "template=qwen3" in limits_not_kept(thinking_off, 50)[0]
    assert score(uncounted).over_budget is None
    assert score(uncounted).mean_reasoning_tokens is None


@pytest.mark.parametrize("name", ["mmlu", "builtin"])
def test_a_smaller_limit_is_a_part_of_a_larger_one(name: str) -> None:
    settings = evaluate_settings([name])
    drawn = [
        {question.id for question in load_benchmark(name, settings.benchmark[name], seed=0, limit=limit).questions}
        for limit in (3, 7, 20)
    ]
    assert [len(ids) for ids in drawn] == [3, 7, 20]
    assert drawn[0] < drawn[1] < drawn[2]


def test_more_questions_add_to_a_log_and_other_settings_do_not(tmp_path: Path) -> None:
    few, more = evaluate_settings(["mmlu"], "limit=5"), evaluate_settings(["mmlu"], "limit=9")
    log = tmp_path / "mmlu.jsonl"
    run(ScriptedEngine(scripted(few)), few, log)
    engine = ScriptedEngine(scripted(more))
    assert len(run(engine, more, log).samples) == 18
    assert len(engine.asked) < 18
    with pytest.raises(DataError, match="belongs to another evaluation: model was m, is n"):
        run(engine, more, log, identity={"model": "n"})
