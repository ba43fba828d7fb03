"""lm-evaluation-harness runs a task of its own against the service; it lives in an environment of its own.

That is `.venv-lm-eval`, or the one of the program in $NEMO_REASONING_LM_EVAL; see docs/serving.md.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
from live import MODEL, Live

ROOT = Path(__file__).parents[3]
LM_EVAL = Path(os.environ.get("NEMO_REASONING_LM_EVAL", ROOT / ".venv-lm-eval/bin/lm_eval"))


@pytest.mark.slow
@pytest.mark.skipif(not LM_EVAL.is_file(), reason=f"there is no lm_eval at {LM_EVAL}")
def test_a_task_runs(live: Live, tmp_path: Path) -> None:
    model = f"model={MODEL},base_url={live.url}/v1/chat/completions,num_concurrent=4,max_retries=1"
    options = ["--include_path", "benchmarks/lm_eval", "--tasks", "held_out", "--apply_chat_template", "--limit", "8"]
    environment = {**os.environ, "OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [LM_EVAL, "run", "--model", "local-chat-completions", "--model_args", model, *options],
        cwd=ROOT,
        env={key: value for key, value in environment.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"held_out\W.*exact_match", done.stdout)
