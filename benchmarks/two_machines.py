"""Train on two machines, a network namespace each: one of them is lost, or the network is slow and drops packets.

    python benchmarks/two_machines.py            # all of it; needs root, iproute2 and iptables
    python benchmarks/two_machines.py --quick    # a machine without power alone

A tiny random Llama is trained by two processes that know each other by the addresses of a pair of virtual interfaces,
through `recipes/sft_lora.py launch=torchrun`, once undisturbed. Then, in runs of their own: all processes of the second
machine are killed, as the kernel does for want of memory; the second machine loses its power, so that nothing comes
from it any more, no end of a connection either; and the network is slow and drops packets. The survivor's message and
how long it took are shown, the pair is started again, and losses, norms of gradients and validation losses have to be
those of the undisturbed run. The last line is a JSON object.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from replicas import free_port
from rich.console import Console
from rich.table import Table
from slurm import measurements

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from tiny import save_tiny_llama  # noqa: E402

STEPS, AT = 24, 10
MACHINES = ("nr-first", "nr-second")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
RATE, DROPPED = "20mbit", 0.03  # of what each machine sends; of what each one receives
OVERRIDES = (
    *("model=hf_local", "model.template=chatml", "data=builtin", "data.rows=200", "data.workers=1", "hardware=cpu"),
    *("trainer.precision=32", "trainer.seq_length=256", "trainer.global_batch_size=8", "trainer.micro_batch_size=4"),
    *(f"trainer.max_steps={STEPS}", "trainer.eval_interval=4", "peft.dim=4", "callbacks.samples_interval=0"),
    *("logger=none", "launch=torchrun", "launch.nodes=2", f"launch.address={ADDRESSES[0]}"),
)


def ip(*words: str) -> None:
    """Run the command of iproute2."""
    subprocess.run(["ip", *words], check=True)


@contextmanager
def two_machines() -> Iterator[None]:
    """Have two network namespaces that a pair of virtual interfaces connects, for the length of the block."""
    for name in MACHINES:
        subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)
        ip("netns", "add", name)
    try:
        ip("link", "add", MACHINES[0], "type", "veth", "peer", "name", MACHINES[1])
        for name, address in zip(MACHINES, ADDRESSES, strict=True):
            ip("link", "set", name, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", name, "up")
        yield
    finally:
        for name in MACHINES:
            kill_all(name)
            ip("netns", "del", name)


def kill_all(machine: str) -> None:
    """Kill all processes of a machine."""
    found = subprocess.run(["ip", "netns", "pids", machine], capture_output=True, text=True, check=True).stdout
    for process in found.split():
        os.kill(int(process), signal.SIGKILL)


def within(machine: str, *words: str) -> list[str]:
    """Return the words that run a command on a machine."""
    return ["ip", "netns", "exec", machine, *words]


class Pair:
    """A training on both machines."""

    def __init__(self, folder: Path, base: Path) -> None:
        """Start it, or go on with it."""
        self.folder, self.began = folder, time.monotonic()
        self.logs = [folder.with_name(f"{folder.name}-{machine}.txt") for machine in MACHINES]
        places = [f"model.source={base}", f"output_dir={folder}", f"cache_dir={folder.parent / 'cache'}"]
        port, recipe = f"launch.port={free_port()}", str(ROOT / "recipes" / "sft_lora.py")
        self.processes = []
        for number, (machine, log) in enumerate(zip(MACHINES, self.logs, strict=True)):
            command = [sys.executable, recipe, *OVERRIDES, *places, port, f"launch.node_rank={number}"]
            with log.open("wb") as out:
                self.processes.append(
                    subprocess.Popen(
                        within(machine, *command),
                        stdout=out,
                        stderr=out,
                        env={**os.environ, "GLOO_SOCKET_IFNAME": machine, "OMP_NUM_THREADS": "1"},
                    )
                )

    def reach(self, step: int) -> None:
        """Wait for a step."""
        path = self.folder / "metrics.jsonl"
        while not path.is_file() or path.read_text(encoding="utf-8").count('"loss"') < step:
            if self.processes[0].poll() is not None:
                sys.exit(f"ended before step {step}\n{self.said()}")
            time.sleep(0.05)

    def survivor(self) -> tuple[int, float]:
        """Return exit code of the first machine's, and the seconds until it ended."""
        began = time.monotonic()
        code = self.processes[0].wait(timeout=180)
        return code, time.monotonic() - began

    def said(self, machine: int = 0) -> str:
        """Return what was said on a machine."""
        return self.logs[machine].read_text(encoding="utf-8", errors="replace")

    def finish(self) -> dict[tuple[int, str], float]:
        """Wait for the end, and return what was measured by step and name."""
        codes = [process.wait(timeout=400) for process in self.processes]
        if codes != [0, 0]:
            sys.exit(f"ended with {codes}\n{self.said()}\n{self.said(1)}")
        return measurements(self.folder)


def killed(pair: Pair) -> None:
    """Kill the second machine's processes; its kernel closes their connections."""
    kill_all(MACHINES[1])


def without_power(pair: Pair) -> None:
    """Cut the second machine off, then kill its processes: nothing of that reaches the first."""
    ip("-n", MACHINES[1], "link", "set", MACHINES[1], "down")
    kill_all(MACHINES[1])


def bad_network() -> None:
    """Make both directions slow with a token bucket, and drop some of what arrives."""
    for machine in MACHINES:
        slow = ["tc", "qdisc", "add", "dev", machine, "root", "tbf", "rate", RATE, "burst", "16kb", "latency", "400ms"]
        drop = ["iptables", "-A", "INPUT", "-i", machine, "-m", "statistic", "--mode", "random"]
        subprocess.run(within(machine, *slow), check=True)
        subprocess.run(within(machine, *drop, "--probability", str(DROPPED), "-j", "DROP"), check=True)


def packets(machine: str) -> tuple[int, int]:
    """Return how many packets a machine dropped, and how many segments it sent again."""
    rules = subprocess.run(
        within(machine, "iptables", "-nvxL", "INPUT"), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    dropped = sum(int(line.split()[0]) for line in rules if " DROP " in line)
    shown = subprocess.run(within(machine, "cat", "/proc/net/snmp"), capture_output=True, text=True, check=True).stdout
    names, values = (line.split()[1:] for line in shown.splitlines() if line.startswith("Tcp:"))
    return dropped, int(dict(zip(names, values, strict=True))["RetransSegs"])


def main() -> None:
    """Run it and print a table and a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a machine without power alone")
    quick = parser.parse_args().quick
    if missing := [name for name in ("ip", "tc", "iptables") if shutil.which(name) is None]:
        sys.exit(f"{', '.join(missing)} not installed; on Debian: apt-get install iproute2 iptables")
    if os.geteuid() != 0:
        sys.exit("network namespaces take root's rights")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # and take the namespaces away
    with tempfile.TemporaryDirectory() as name, two_machines():
        report(*measured(Path(name), (without_power,) if quick else (killed, without_power), quick=quick))


def measured(folder: Path, harms: Any, *, quick: bool) -> tuple[list[list[str]], dict[str, Any]]:
    """Return a row for each run, and what to write as JSON."""
    base = save_tiny_llama(folder / "llama")
    pair = Pair(folder / "undisturbed", base)
    undisturbed = pair.finish()
    seconds = time.monotonic() - pair.began
    rows, found = [["undisturbed", "", f"{seconds:.0f} s in all"]], {"undisturbed_seconds": round(seconds, 1)}
    different = 0
    for harm in harms:
        pair = Pair(folder / harm.__name__, base)
        pair.reach(AT)
        harm(pair)
        code, waited = pair.survivor()
        ip("-n", MACHINES[1], "link", "set", MACHINES[1], "up")
        kill_all(MACHINES[0])
        line = next((line for line in pair.said().splitlines() if "Error" in line), pair.said())
        unequal = differences(undisturbed, Pair(pair.folder, base).finish())
        different += unequal
        rows.append(
            [harm.__name__.replace("_", " "), f"after {waited:.1f} s, exit {code}: {line}", f"{unequal} differ"]
        )
        found[harm.__name__] = {"seconds": round(waited, 1), "code": code, "said": line, "different": unequal}
        found[harm.__name__]["traceback"] = "Traceback" in pair.said()
    if not quick:
        bad_network()
        pair = Pair(folder / "network", base)
        unequal = differences(undisturbed, pair.finish())
        seconds = time.monotonic() - pair.began
        dropped, again = (sum(numbers) for numbers in zip(*map(packets, MACHINES), strict=True))
        rows.append(
            ["slow, dropping network", f"{dropped} packets dropped, {again} sent again", f"{seconds:.0f} s in all"]
        )
        rows[-1][2] += f", {unequal} differ"
        different += unequal
        found["bad_network"] = {"seconds": round(seconds, 1), "dropped": dropped, "again": again, "different": unequal}
    return rows, found | {"compared": len(undisturbed), "different": different}


def differences(one: dict[tuple[int, str], float], other: dict[tuple[int, str], float]) -> int:
    """Return how many of the numbers of two runs differ, or are missing in one."""
    return sum(one.get(key) != other.get(key) for key in one | other)


def report(rows: list[list[str]], found: dict[str, Any]) -> None:
    """Print what was seen."""
    table = Table("run", "seen", "against the undisturbed run")
    for row in rows:
        table.add_row(*row)
    Console(width=160).print(table)
    print(json.dumps(found))
    sys.exit(bool(found["different"]))


if __name__ == "__main__":
    main()
