"""lm-evaluation-harness runs tasks against the service; it lives in an environment of its own.

That is `.venv-lm-eval`, or the one of the program in $NEMO_REASONING_LM_EVAL; see docs/serving.md.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from live import MODEL, Live

ROOT = Path(__file__).parents[3]
LM_EVAL = Path(os.environ.get("NEMO_REASONING_LM_EVAL", ROOT / ".venv-lm-eval/bin/lm_eval"))
_RANKED = """
task: ranked
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc}}]
"""


def run(live: Live, kind: str, path: str, tasks: Path | str, *options: str, home: Path) -> str:
    model = f"model={MODEL},base_url={live.url}/v1/{path},num_concurrent=4,max_retries=1"
    done = subprocess.run(
        [LM_EVAL, "run", "--model", kind, "--include_path", tasks, "--limit", "8", *options]
        + ["--model_args", model + (f",tokenizer={home / 'tokenizer'}" if kind == "local-completions" else "")],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        | {"OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1", "HF_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not LM_EVAL.is_file(), reason=f"there is no lm_eval at {LM_EVAL}")
def test_tasks_run_through_every_endpoint(live: Live, tmp_path: Path) -> None:
    live.engine.tokenizer(None).hf_tokenizer.save_pretrained(tmp_path / "tokenizer")
    held_out = ("benchmarks/lm_eval", "--tasks", "held_out")
    for kind, path, options in (
        ("local-chat-completions", "chat/completions", ["--apply_chat_template"]),
        ("local-completions", "completions", ["--gen_kwargs", "max_gen_toks=16"]),
    ):
        printed = run(live, kind, path, *held_out, *options, home=tmp_path)
        assert re.search(r"held_out\W.*exact_match", printed)
    rows = [{"question": "1, 2, 3,", "choices": [" 4", " a long answer"], "answer": 0}] * 2
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "ranked.yaml").write_text(_RANKED.format(rows=tmp_path / "rows.jsonl"))
    ranked = run(live, "local-completions", "completions", tmp_path / "tasks", "--tasks", "ranked", home=tmp_path)
    assert re.search(r"ranked\W.*acc", ranked)
