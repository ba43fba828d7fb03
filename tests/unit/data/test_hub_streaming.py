import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hub_server import COMMIT, Hub, serving
from prepared_rows import corpus, lines_of, nemotron_row, prepared, write_lines
from pyarrow import parquet as pq

from nemo_reasoning.artifacts import read_manifest
from nemo_reasoning.data.prepare import units
from nemo_reasoning.errors import DataError

HERE = Path(__file__).parent
CHOSEN = (
    "data=nemotron",
    "data.fast_tokenizer=false",
    "data.filters.languages=[]",
    "data.block_kb=16",
    "data.workers=1",
)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    corpus(tmp_path / "hub/SFT/math/math_v1.jsonl", 3000)
    corpus(tmp_path / "hub/SFT/math/math_v1.1.jsonl", 1000, seed=1)
    corpus(tmp_path / "hub/SFT/code/code_v1.jsonl", 300, seed=2)
    turns = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
    rows = [
        nemotron_row(
            number,
            input=turns,
            reasoning="off",
            output=f"Hi {number}!<|eot_id|>",
            system_prompt="",
            used_in_training="no",
        )
        for number in range(50)
    ]
    write_lines(tmp_path / "hub/RL/instruction_following/instruction_following.jsonl", rows)
    return tmp_path / "hub"


def _stream(endpoint: str, out: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    paths = [*map(str, (HERE, HERE.parents[1])), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(HERE / "killed_run.py"), str(out), *overrides]
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=False)


def _bytes_sent(hub: Hub) -> int:
    return sum(last - first + 1 for _, first, last in hub.ranges)


def test_a_sample_is_streamed_in_ranges_and_equals_the_one_of_a_snapshot(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "_SMALL", 0)  # or the snapshot would be drawn from row by row
    chosen = (*CHOSEN, "data.subsets={math: 60, coding: 30, instruction_following: null}")
    with serving(snapshot) as (endpoint, hub):
        hub.broken = 2
        finished = _stream(endpoint, tmp_path / "streamed", *chosen)
        assert finished.returncode == 0, finished.stderr
        assert hub.broken == 0
    whole = sum(path.stat().st_size for path in snapshot.rglob("*.jsonl"))
    assert _bytes_sent(hub) < whole / 2
    assert {file.split("/")[1] for file, _, _ in hub.ranges} == {"math", "code", "instruction_following"}
    manifest = read_manifest(tmp_path / "streamed")
    assert all(f"@{COMMIT}/" in file for files in manifest["inputs"]["rows"].values() for file in files)
    kept = {name: outcomes["kept"] for name, outcomes in manifest["counts"]["outcomes"].items()}
    assert kept == {"code": 30, "instruction_following": 50, "math": 60}
    lines = [line for name in ("training", "validation") for line in lines_of(tmp_path / f"streamed/{name}.jsonl")]
    older = [line["messages"] for line in lines if line["messages"][1]["content"] == "Hello"]
    assert sorted(messages[2]["content"] for messages in older) == sorted(f"Hi {number}!" for number in range(50))
    prepared(tmp_path / "local", *chosen, f"data.root={snapshot}", "data.revision=null")
    for name in ("training.jsonl", "validation.jsonl", "train/tokens.npy"):
        assert (tmp_path / "streamed" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def test_a_hub_out_of_reach_and_an_unknown_subset_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nvidia/Llama-Nemotron.* is out of reach .*data\.root"):
        prepared(tmp_path / "out", *CHOSEN, "data.subsets={math: 5}")
    with pytest.raises(DataError, match=r"'physics' is none of chat, code, coding, instruction_following, math"):
        prepared(tmp_path / "out", *CHOSEN, f"data.root={tmp_path}", "data.subsets={physics: 5}")
    with pytest.raises(DataError, match=r"no such file: .*/SFT/math/\*\.jsonl"):
        prepared(tmp_path / "out", *CHOSEN, f"data.root={tmp_path}", "data.subsets={math: 5}")


REFUSED = {
    "gated": r"is gated: accept its terms at https://\S+, then set HF_TOKEN",
    "account without access": r"the hub refuses .* \(status 403\)",
    "wrong token": r"set HF_TOKEN to a valid token",
    "too many requests": r"\(status 429\): wait some minutes, or set HF_TOKEN",
    "listing refused": r"is not open to this account: accept its terms",
    "listing limited": r"for too many requests: wait some minutes",
    "file refused": r"math_v1.*\.jsonl is not open to this account: accept its terms",
    "file gone": r"math_v1.*\.jsonl is not there: check its name and revision",
    "file limited": r"math_v1.*\.jsonl is refused for now, for too many requests: wait",
    "unknown revision": r"has no such revision; see https://\S+/commits",
    "unknown set": r"nvidia/None is neither a directory nor a data set you can see",
    "no name of a set": r"data\.root=nvidia: no such folder",
    "unknown split": r"data\.subsets: 'train' is none of chat",
    "unknown folder": r"no such file: .*SFT/maths",
    "page": r"page\.jsonl \(\d+ bytes\) is an HTML or XML page",
    "parquet refused": r"math-\S+\.parquet is not open to this account: accept its terms",
}


@pytest.mark.slow
def test_what_a_hub_refuses_is_told_at_once_and_what_breaks_off_is_asked_for_again(snapshot: Path) -> None:
    (snapshot / "SFT/page.jsonl").write_text("<!DOCTYPE html><html>sign in</html>")
    (snapshot / "data").mkdir()
    wide = [nemotron_row(number, used_in_training="no", uuid=f"{number:5000}") for number in range(1000)]
    table = pa.Table.from_pylist(wide)
    pq.write_table(table, snapshot / "data/math-0.parquet", row_group_size=50, compression="none", use_dictionary=False)
    paths = [*map(str, (HERE, HERE.parent, HERE.parents[1])), str(HERE.parents[2]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, str(HERE / "refused_runs.py"), str(snapshot.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    for name, message in REFUSED.items():
        assert re.search(f"^DataError: .*{message}", told.pop(name)), name
    assert all(said.startswith("kept 30, ") for said in told.values()), told
    assert int(told["parquet"].split()[-2]) < 500  # of 6 MB: one row group, without the columns that say nothing
