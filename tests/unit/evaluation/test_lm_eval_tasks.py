"""lm-evaluation-harness asks our engines; skipped where it is not installed."""

import json
import sys
from pathlib import Path

import pytest
from scripted import ScriptedEngine

from nemo_reasoning.config.evaluate import ProtocolName, ProtocolSettings
from nemo_reasoning.errors import BackendError
from nemo_reasoning.evaluation.lm_eval import run_task
from nemo_reasoning.evaluation.samples import Sample
from nemo_reasoning.reasoning.messages import Mode
from nemo_reasoning.reasoning.sampling import Sampling
from nemo_reasoning.reasoning.tags import with_thinking

GREEDY = Sampling()
PROTOCOL = ProtocolSettings(name=ProtocolName.ours, max_tokens=200, thinking_on=GREEDY, thinking_off=GREEDY)
ROWS = [{"question": f"What is {number} plus 1?", "answer": str(number + 1)} for number in range(4)]
TASK = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"]}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def run(folder: Path, mode: Mode, *, limit: int | None = None) -> tuple[ScriptedEngine, list[Sample]]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "sums.yaml").write_text(TASK.format(path=folder / "rows.jsonl"))

    def script(prompt: str, mode: Mode) -> str:
        answer = next(row["answer"] for row in ROWS if row["question"] == prompt)
        right = answer if answer != "3" else "4"
        return with_thinking("7", f"{right}\nmore") if mode == "on" else f"{right}\nmore"

    engine = ScriptedEngine(script)
    samples = run_task(
        engine, task="sums", mode=mode, budget=None, protocol=PROTOCOL, seed=0, limit=limit, include_path=str(folder)
    )
    return engine, samples


@pytest.mark.parametrize("mode", ["on", "off"])
def test_a_task_is_asked_and_judged_without_the_thinking(
    tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    engine, samples = run(tmp_path, mode)
    assert [(sample.expected, sample.extracted, sample.correct) for sample in samples] == [
        ("1", "1", True), ("2", "2", True), ("3", "4", False), ("4", "4", True)
    ]  # fmt: skip
    assert {sample.mode for sample in samples} == {mode}
    assert {request.max_new_tokens for request in engine.asked} == {200}
    assert all(sample.reasoning == ("7" if mode == "on" else "") for sample in samples)
    assert len(run(tmp_path, mode, limit=2)[1]) == 2


def test_without_lm_eval_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(BackendError, match=r"pip install 'lm_eval\[ifeval\]'"):
        run(tmp_path, "on")
