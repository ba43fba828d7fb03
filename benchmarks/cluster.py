"""Prepare rows on a Ray cluster of two nodes on this machine, while workers and a node are killed.

    python benchmarks/cluster.py                  # 60 MB, each harm once
    python benchmarks/cluster.py --quick          # 20 MB
    python benchmarks/cluster.py --rows 1 2 4     # memory of the driver, in millions of short rows

What is prepared has to be, byte for byte, what processes of one machine make of the same rows. A node that sees another
folder under the name of the output (a file system of its own, mounted over it; as root only) has to be refused. The
last line is a JSON object.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from corpus import row, write_corpus
from rich.console import Console
from rich.table import Table

from nemo_reasoning.artifacts import file_sha256

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
PORT, STORE_BYTES = 6390, 100_000_000


class Node:
    """A node of the cluster with one core, as `ray start` makes it."""

    def __init__(self, *, head: bool, hidden: Path | None = None) -> None:
        """Start it; `hidden` is a folder that it has an empty one of its own in the place of."""
        joins = ["--head", f"--port={PORT}", "--include-dashboard=false"] if head else [f"--address=127.0.0.1:{PORT}"]
        ray = str(Path(sys.executable).with_name("ray"))
        command = [ray, "start", *joins, "--num-cpus=1", f"--object-store-memory={STORE_BYTES}", "--block"]
        if hidden is not None:
            script = 'mount -t tmpfs none "$0" && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", script, str(hidden), *command]
        self._process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def processes(self) -> list[psutil.Process]:
        """Return all of its processes."""
        found = psutil.Process(self._process.pid)
        return [found, *found.children(recursive=True)]

    def kill(self) -> None:
        """Let all of it disappear at once, as a machine does."""
        if self._process.poll() is None:
            processes = self.processes()
            for process in processes:
                process.suspend()  # none may tidy up after another
            for process in processes:
                process.kill()
        self._process.wait()


@contextmanager
def cluster(*, hidden: Path | None = None) -> Iterator[list[Node]]:
    """Start two nodes, and wait until both take work."""
    nodes = [Node(head=True)]
    try:
        status = [str(Path(sys.executable).with_name("ray")), "status", f"--address=127.0.0.1:{PORT}"]
        for cores in ("1.0 CPU", "2.0 CPU"):
            while cores not in subprocess.run(status, env=ENVIRONMENT, capture_output=True, text=True).stdout:
                time.sleep(0.5)
            if len(nodes) == 1:
                nodes.append(Node(head=False, hidden=hidden))
        yield nodes
    finally:
        for node in reversed(nodes):
            node.kill()
        noted = Path("/tmp/ray/ray_current_cluster")  # noqa: S108 - where Ray looks for a cluster on this machine
        if noted.is_file() and noted.read_text().endswith(f":{PORT}"):
            noted.unlink()


def prepare(rows: Path, out: Path, engine: str, *more: str) -> "subprocess.Popen[str]":
    """Start the command."""
    chosen = [f"data.engine={engine}", "data.shard_mb=1", f"output_dir={out}", *more]
    command = [sys.executable, str(ROOT / "recipes" / "prepare_data.py"), "data=jsonl", f"data.paths=[{rows}]", *chosen]
    where = {"RAY_ADDRESS": f"127.0.0.1:{PORT}"} if engine == "ray" else {}
    return subprocess.Popen(
        command, env=ENVIRONMENT | where, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def digests(out: Path) -> dict[str, str]:
    """Return what identifies each file below a folder."""
    return {str(path.relative_to(out)): file_sha256(path) for path in sorted(out.rglob("*")) if path.is_file()}


def finished_shards(out: Path) -> int:
    """Return how many shards of an unfinished preparation are written."""
    return sum(not path.name.startswith(".") for path in out.parent.glob(f".{out.name}.work-*/shards/*"))


def kill_a_worker(nodes: list[Node]) -> None:
    """Kill a worker of the second node in the middle of its work."""
    working: list[psutil.Process] = []
    while not working:
        working = [process for process in nodes[1].processes() if "_compute" in "".join(process.cmdline())]
    working[0].kill()


def kill_the_node(nodes: list[Node]) -> None:
    """Kill the second node, which had half of the work."""
    nodes[1].kill()


HARMS: dict[str, Callable[[list[Node]], None]] = {
    "nothing": lambda nodes: None,
    "a worker killed": kill_a_worker,
    "a node killed": kill_the_node,
}


def under_harm(rows: Path, out: Path, harm: str) -> dict[str, Any]:
    """Prepare on a cluster, harm it after the first shards, and return what came of it."""
    with cluster() as nodes:
        began = time.monotonic()
        process = prepare(rows, out, "ray")
        while process.poll() is None and finished_shards(out) < 4:
            time.sleep(0.02)
        harmed_at = finished_shards(out)
        HARMS[harm](nodes)
        said = process.communicate()[1]
    return {"exit": process.returncode, "shards_before": harmed_at, "seconds": time.monotonic() - began, "said": said}


def unshared(rows: Path, out: Path) -> str:
    """Return what is said where one of the nodes does not see the folder that is written to."""
    out.parent.mkdir()
    with cluster(hidden=out.parent):
        process = prepare(rows, out, "ray")
        said = process.communicate()[1].strip()
    return f"exit {process.returncode}: {said.splitlines()[-1] if said else ''}"


def short_rows(path: Path, count: int) -> Path:
    """Write small sums, of which no two are alike."""
    with path.open("w", encoding="utf-8") as lines:
        for number in range(count):
            lines.write(json.dumps(row(f"What is {number} + 1?", f"{number + 1}", thinks=False)) + "\n")
    return path


def driver_memory(folder: Path, millions: list[float]) -> dict[str, dict[str, float]]:
    """Return, by millions of rows, the largest memory of the process that prepares, in MB, and its seconds."""
    found = {}
    for wanted in millions:
        rows, out = short_rows(folder / "short.jsonl", int(wanted * 1e6)), folder / "out"
        with cluster():
            began, peak = time.monotonic(), 0.0
            process = prepare(rows, out, "ray", "data.shard_mb=8", "data.messages=false")
            while process.poll() is None:
                peak = max(peak, own_memory(process.pid))
                time.sleep(0.05)
        if process.returncode:
            sys.exit(process.communicate()[1])
        found[str(wanted)] = {"peak_mb": round(peak), "seconds": round(time.monotonic() - began)}
        print(f"{wanted} million rows: {found[str(wanted)]}", file=sys.stderr)
        shutil.rmtree(out)
    return found


def own_memory(pid: int) -> float:
    """Return the MB that a process alone holds; pages of files that it maps are the system's to give to others."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


def harms(folder: Path, *, megabytes: float) -> bool:
    """Try every harm, print a table and a JSON object, and tell whether all came out as they have to."""
    rows = write_corpus(folder / "rows.jsonl", megabytes=megabytes)
    alone = prepare(rows, folder / "alone", "local", "data.workers=2")
    if alone.wait():
        sys.exit(alone.communicate()[1])
    wanted, table, found = digests(folder / "alone"), Table("harm", "shards before it", "seconds", "bytes"), {}
    for harm in HARMS:
        out = folder / harm.replace(" ", "-")
        told = under_harm(rows, out, harm)
        same = told["exit"] == 0 and digests(out) == wanted
        table.add_row(harm, str(told["shards_before"]), f"{told['seconds']:.0f}", "the same" if same else told["said"])
        found[harm] = {"same": same, "seconds": round(told["seconds"])}
    Console().print(table)
    if os.geteuid() == 0:
        found["a folder that is not shared"] = said = unshared(rows, folder / "mounted" / "out")
        Console().print(f"a folder that is not shared: {said}")
    print(json.dumps(found))
    return all(told["same"] for told in found.values() if isinstance(told, dict))


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 MB of rows")
    parser.add_argument("--rows", type=float, nargs="+", help="millions of short rows: the memory of the driver")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        if chosen.rows:
            print(json.dumps(driver_memory(Path(name), chosen.rows)))
        elif not harms(Path(name), megabytes=20 if chosen.quick else 60):
            sys.exit(1)


if __name__ == "__main__":
    main()
