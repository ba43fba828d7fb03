"""Problems are asked in both modes, judged, counted and kept."""

from dataclasses import replace
from pathlib import Path

import pytest
from scripted import ScriptedEngine
from tiny import chatml_tokenizer, save_tiny_llama

from nemo_reasoning.data.builtin import Problem, held_out
from nemo_reasoning.data.chat import load_template
from nemo_reasoning.errors import DataError
from nemo_reasoning.evaluation.runner import evaluate_problems
from nemo_reasoning.evaluation.samples import Evaluation, Sample
from nemo_reasoning.evaluation.scores import score
from nemo_reasoning.inference.hf.engine import HFEngine
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.tags import with_thinking

PROBLEM = Problem("product", "What is 12 times 7?", "10 * 7 = 70", "84", "The answer is 84.")


def verdict(text: str, mode: Mode = "on", *, max_new_tokens: int = 1000) -> Sample:
    engine = ScriptedEngine(lambda prompt, mode: text)
    [sample] = evaluate_problems(engine, [PROBLEM], [mode], max_new_tokens=max_new_tokens).samples
    return sample


@pytest.mark.parametrize(
    ("text", "mode", "correct", "well_formed"),
    [
        ("<think>\n70 + 14 = 84\n</think>\n\nThe answer is 84.", "on", True, True),
        ("<think>\n70 + 14 = 85\n</think>\n\nThe answer is 85.", "on", False, True),
        ("The answer is 84.", "on", True, False),
        ("<think>\nThe answer is 84.", "on", False, False),
        ("<think>\nThe answer is 84.\n</think>\n\nI do not know.", "on", False, True),
        ("The answer is 84.0.", "off", True, True),
        ("12 times 7 equals 84", "off", True, True),
        ("84 it is not; the answer is 85.", "off", False, True),
        ("The answer is 85. 84", "off", False, True),
        ("<think>\n84\n</think>\n\nThe answer is 84.", "off", True, False),
        ("", "off", False, False),
    ],
)
def test_value_and_form_are_judged_apart(text: str, mode: Mode, correct: bool, well_formed: bool) -> None:
    sample = verdict(text, mode)
    assert (sample.correct, sample.well_formed) == (correct, well_formed)
    assert (sample.mode, sample.expected, sample.text) == (mode, "84", text)
    assert not sample.truncated


def test_a_cut_completion_is_truncated_and_malformed() -> None:
    sample = verdict("The answer is 84. And then", "off", max_new_tokens=17)
    assert (sample.truncated, sample.well_formed, sample.completion_tokens) == (True, False, 17)


def test_every_problem_is_asked_greedily_in_every_mode() -> None:
    problems = held_out(count=6, seed=1)
    engine = ScriptedEngine(lambda prompt, mode: "0")
    evaluation = evaluate_problems(engine, problems, max_new_tokens=50)
    asked = [(request.mode, request.messages[-1].content) for request in engine.asked]
    assert asked == [(mode, problem.prompt) for mode in ("on", "off") for problem in problems]
    assert {(request.sampling.temperature, request.max_new_tokens) for request in engine.asked} == {(0.0, 50)}
    assert [(sample.mode, sample.prompt) for sample in evaluation.samples] == asked


def test_scores_count_by_mode_and_family() -> None:
    problems = held_out(count=7, seed=2)
    finals = {problem.prompt: problem for problem in problems}

    def script(prompt: str, mode: Mode) -> str:
        problem = finals[prompt]
        right = mode == "on" or problem.family == "product"
        final = problem.final if right else "The answer is -1."
        return with_thinking(problem.trace, final) if mode == "on" else final

    evaluation = evaluate_problems(ScriptedEngine(script), problems, max_new_tokens=1000)
    on, off = score(evaluation.of("on")), score(evaluation.of("off"))
    assert (on.n, on.correct, on.well_formed, on.truncated) == (7, 7, 7, 0)
    assert (off.n, off.correct, off.well_formed) == (7, 3, 7)
    assert off.families == {
        "product": {"n": 3, "correct": 3},
        "chain": {"n": 2, "correct": 0},
        "total": {"n": 2, "correct": 0},
    }
    lengths = [sample.completion_tokens for sample in evaluation.of("on")]
    assert on.mean_tokens == pytest.approx(sum(lengths) / 7)
    assert on.mean_reasoning_tokens == pytest.approx(sum(len(problem.trace) for problem in problems) / 7)


def test_a_model_evaluates_the_same_twice(tmp_path: Path) -> None:
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = load_template("chatml")
    engine = HFEngine(save_tiny_llama(tmp_path / "model", tokenizer=tokenizer), dtype="float32", device="cpu")
    problems = held_out(count=6, seed=0)
    first = evaluate_problems(engine, problems, max_new_tokens=8)
    assert evaluate_problems(engine, problems, max_new_tokens=8) == first
    assert (score(first.of("on")).well_formed, score(first.of("off")).truncated) == (0, 6)
    assert score(first.of("off")).mean_tokens == 8
    uncounted = replace(first.of("off")[0], completion_tokens=0)  # of a server that tells no numbers
    assert score([*first.of("off"), uncounted]).mean_tokens is None


def test_samples_survive_the_file(tmp_path: Path) -> None:
    odd = replace(verdict("The answer is 84."), text='line\u2028"separator"\n\\n\t', extracted=None)
    evaluation = Evaluation((verdict("84"), odd))
    evaluation.save(tmp_path / "base.jsonl")
    assert Evaluation.load(tmp_path / "base.jsonl") == evaluation
    assert len((tmp_path / "base.jsonl").read_text(encoding="utf-8").split("\n")) == 3


def test_what_cannot_be_evaluated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no problems"):
        evaluate_problems(ScriptedEngine(lambda prompt, mode: ""), [], max_new_tokens=1)
    with pytest.raises(DataError, match="no samples"):
        score([])
    with pytest.raises(DataError, match="does not exist"):
        Evaluation.load(tmp_path / "nowhere.jsonl")
    (tmp_path / "other.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(DataError, match="no sample"):
        Evaluation.load(tmp_path / "other.jsonl")
