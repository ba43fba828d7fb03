import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from prepared_rows import corpus, digests, prepared

HERE = Path(__file__).parent
CHOSEN = ("data=jsonl", "data.shard_mb=1", "data.fast_tokenizer=false", "data.order=curriculum")
KILLS = 4


def _command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(HERE / "killed_run.py"), str(out), *arguments]


def _environment() -> dict[str, str]:
    paths = [*map(str, (HERE, HERE.parents[1])), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _shards(out: Path) -> int:
    return len(list(out.parent.glob(".out.work-*/shards/[!.]*")))


def _wait_for_shards(out: Path, process: subprocess.Popen[bytes], *, count: int) -> None:
    """Wait until a number of shards is finished; for a number that is, until work begins."""
    begun = time.monotonic()
    while process.poll() is None and not out.exists() and (_shards(out) < count or time.monotonic() < begun + 3):
        time.sleep(0.05)


def _wait_until_gone(group: int) -> None:
    """Wait until nothing is left of a process and what it started."""
    ends = time.monotonic() + 20
    with suppress(ProcessLookupError):
        while time.monotonic() < ends:
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)
        raise AssertionError("workers of a killed preparation run on")


@pytest.mark.slow
def test_a_run_killed_many_times_ends_in_the_same_bytes(tmp_path: Path) -> None:
    rows = corpus(tmp_path / "rows.jsonl", 4_000)
    chosen = (*CHOSEN, f"data.paths=[{rows}]", "data.workers=2")
    prepared(tmp_path / "whole" / "out", *chosen)
    shards = rows.stat().st_size // 2**20
    out, moments = tmp_path / "killed" / "out", random.Random(5)
    reached = set()
    for time_killed in range(KILLS):
        process = subprocess.Popen(_command(out, *chosen), env=_environment(), start_new_session=True)
        _wait_for_shards(out, process, count=int(moments.uniform(time_killed, time_killed + 1) * shards / KILLS))
        time.sleep(moments.uniform(0, 0.3))
        process.kill()  # it alone: what works for it has to notice
        process.wait()
        _wait_until_gone(process.pid)
        reached.add(_shards(out))
    subprocess.run(_command(out, *chosen), env=_environment(), check=True)
    assert digests(out) == digests(tmp_path / "whole" / "out")
    assert len(reached) > 1  # the kills came at different stages
    assert [path.name for path in out.parent.iterdir()] in (["out", ".out.lock"], [".out.lock", "out"])


def test_a_run_continues_from_finished_shards(tmp_path: Path) -> None:
    chosen = (*CHOSEN, f"data.paths=[{corpus(tmp_path / 'rows.jsonl', 3000)}]")
    prepared(tmp_path / "whole" / "out", *chosen)
    limited = ("--file-limit", str(1500 * 2**10))  # enough for some shards, not for the merged tokens
    out = tmp_path / "full" / "out"
    failed = subprocess.run(
        _command(out, *limited, *chosen), env=_environment(), stderr=subprocess.PIPE, text=True, check=False
    )
    assert failed.returncode == 1
    assert "no room to write" in failed.stderr
    assert f" MB in {tmp_path}" in failed.stderr
    assert "Make room" in failed.stderr
    assert not out.exists()
    (work,) = out.parent.glob(".out.work-*")
    assert not list((work / "shards").glob(".*"))  # no half shard
    written = {path: path.stat().st_mtime_ns for path in work.glob("shards/*/shard.json")}
    prepared(out, *chosen)
    assert digests(out) == digests(tmp_path / "whole" / "out")
    assert all(not path.exists() for path in written)
