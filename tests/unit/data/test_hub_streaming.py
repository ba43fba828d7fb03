import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import COMMIT, Hub, serving
from prepared_rows import corpus, lines_of, nemotron_row, prepared, write_lines

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
