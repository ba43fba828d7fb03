"""Submit a training to a Slurm cluster of two nodes on this machine, take it off its nodes in three ways, and compare.

    python benchmarks/slurm.py            # the time limit, a preemption, an administrator's requeue
    python benchmarks/slurm.py --quick    # the preemption alone

Slurm's own daemons run, of a cluster that is there for this script: munged, slurmctld and a slurmd for each node. A
tiny random Llama is trained by two processes, one on each node, through `recipes/sft_lora.py launch=slurm`; once
undisturbed, once disturbed. Each time the job has to come back from the queue and go on by itself; at the end losses,
norms of gradients and validation losses have to be those of the undisturbed run. Slurm lets a job that came back wait
for two minutes: this script cuts that short. The last line is a JSON object.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from replicas import free_port
from rich.console import Console
from rich.table import Table

from nemo_reasoning.training.loggers import read_metrics

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from tiny import save_tiny_llama  # noqa: E402

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODES = ("n1", "n2")
OVERRIDES = (
    *("model=hf_local", "model.template=chatml", "data=builtin", "data.rows=200", "data.workers=1", "hardware=cpu"),
    *("trainer.precision=32", "trainer.seq_length=256", "trainer.global_batch_size=8", "trainer.micro_batch_size=4"),
    *("trainer.eval_interval=100", "peft.dim=4", "callbacks.samples_interval=0", "logger=none", "launch=slurm"),
    *("launch.nodes=2", "launch.time=01:00:00", "launch.grace=90", "launch.partition=train"),
)
CONFIGURATION = """\
ClusterName=two
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=train Nodes=n1,n2 Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=90 PreemptMode=REQUEUE
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Run a cluster of two nodes that this machine's commands of Slurm find."""
    import getpass

    host, user = socket.gethostname().split(".")[0], getpass.getuser()
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=2 RealMemory=4000"
        for name in NODES
    )
    file = folder / "slurm.conf"
    file.write_text(
        CONFIGURATION.format(host=host, user=user, controller=free_port(), folder=folder, nodes=nodes), encoding="utf-8"
    )
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    files = {name: folder / f"munge.{name}" for name in ("socket", "seed", "pid", "log")}
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={files['socket']}"]
    munged += [f"--{name}-file={files[name]}" for name in ("seed", "pid", "log")]
    os.environ["SLURM_CONF"] = str(file)
    with ExitStack() as stack:
        stack.enter_context(daemon(munged, folder))
        stack.enter_context(daemon(["slurmctld", "-D"], folder))
        for node in NODES:
            stack.enter_context(daemon(["slurmd", "-D", "-N", node], folder))
        until(lambda: asked("sinfo", "-h", "-o", "%T", "-N").split() == ["idle"] * 4, "two idle nodes")
        yield


@contextmanager
def daemon(command: list[str], folder: Path) -> Iterator[None]:
    """Run a program in the foreground of its own, for the length of the block."""
    with (folder / f"{Path(command[0]).name}.out").open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def asked(*command: str) -> str:
    """Return what a command of Slurm answers."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def until(holds: Callable[[], bool], what: str, *, seconds: float = 240) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"waited {seconds:.0f} s for {what}\n{asked('squeue')}")
        time.sleep(0.2)


def measurements(run: Path) -> dict[tuple[int, str], float]:
    """Return losses, norms of gradients and validation losses of a run by step and name."""
    names = ("loss", "grad_norm", "val_loss")
    steps = read_metrics(run / "metrics.jsonl")
    return {(step["step"], name): step[name] for step in steps for name in names if name in step}


class Job:
    """A training in the cluster."""

    def __init__(self, folder: Path, base: Path, *overrides: str) -> None:
        """Submit it as a user does."""
        self.folder = folder
        recipe = str(ROOT / "recipes" / "sft_lora.py")
        places = [f"model.source={base}", f"output_dir={folder}", f"cache_dir={folder.parent / 'cache'}"]
        done = subprocess.run(
            [sys.executable, recipe, *OVERRIDES, *places, *overrides], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        print(done.stdout, end="", flush=True)
        self.number = done.stdout.split()[1]

    def state(self, name: str = "JobState") -> str:
        """Return what Slurm says of the job."""
        words = dict(word.partition("=")[::2] for word in asked("scontrol", "show", "job", self.number).split())
        return words.get(name, "")

    def steps(self) -> int:
        """Return the steps done."""
        path = self.folder / "metrics.jsonl"
        return path.read_text(encoding="utf-8").count('"loss"') if path.is_file() else 0

    def reach(self, step: int) -> None:
        """Wait for a step."""
        until(lambda: self.steps() >= step or self.state() in ("FAILED", "COMPLETED"), f"step {step}")
        if self.state() in ("FAILED", "COMPLETED"):
            sys.exit(f"{self.state()} before step {step}\n{self.log()}")

    def come_back(self) -> None:
        """Wait until the job is back in the queue, and let it begin at once."""
        until(lambda: self.state() == "PENDING", "the job to be queued again")
        until(lambda: "n1" not in asked("squeue", "-h", "-o", "%N") and not self.leaving(), "its nodes to be free")
        asked("scontrol", "update", f"JobId={self.number}", "StartTime=now", "TimeLimit=60")

    def leaving(self) -> bool:
        """Whether what the job ran is still ending."""
        return "completing" in asked("sinfo", "-h", "-o", "%T", "-N")

    def log(self) -> str:
        """Return what the processes of all starts said."""
        return "".join(path.read_text() for path in sorted((self.folder / "launch").glob("log-*")))

    def finish(self) -> dict[tuple[int, str], float]:
        """Wait for the end, and return what was measured by step and name."""
        until(lambda: self.state() not in ("PENDING", "RUNNING", "COMPLETING"), "the end", seconds=400)
        if self.state() != "COMPLETED":
            sys.exit(f"the job ended as {self.state()}\n{self.log()}")
        return measurements(self.folder)


def time_limit(job: Job) -> None:
    """Bring the time limit close, so that the signal before it is due."""
    asked("scontrol", "update", f"JobId={job.number}", "TimeLimit=2")


def preemption(job: Job) -> None:
    """Submit a job that goes before it, on both nodes."""
    wrapped = ["--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"]
    asked("sbatch", *wrapped)


def requeue(job: Job) -> None:
    """Put it back into the queue as an administrator does; nothing is said to the training before."""
    asked("scontrol", "requeue", job.number)


def main() -> None:
    """Run it and print a table and a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the preemption alone, and fewer steps")
    quick = parser.parse_args().quick
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        sys.exit(f"{', '.join(missing)} not installed; on Debian: apt-get install slurmctld slurmd slurm-client munge")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # and end the daemons
    steps, harms = (300, (preemption,)) if quick else (400, (preemption, time_limit, requeue))
    table, rows = Table("taken off its nodes by", "after step", "the training said"), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = save_tiny_llama(folder / "llama")
        with cluster(folder):
            length = f"trainer.max_steps={steps}"
            undisturbed = Job(folder / "undisturbed", base, length).finish()
            job = Job(folder / "disturbed", base, length)
            for number, harm in enumerate(harms):
                job.reach(steps * (number + 1) // (len(harms) + 2))
                at, said = job.steps(), len(job.log())
                harm(job)
                job.come_back()
                left = [line for line in job.log()[said:].splitlines() if "saved step" in line]
                rows.append((harm.__name__, at, left[-1] if left else "nothing: it was not told"))
            disturbed = job.finish()
            starts = int(job.state("Restarts")) + 1
        for row in rows:
            table.add_row(*map(str, row))
    different = {key for key in undisturbed | disturbed if undisturbed.get(key) != disturbed.get(key)}
    Console(width=150).print(table)
    print(
        json.dumps(
            {
                "starts": starts,
                "compared": len(undisturbed),
                "different": len(different),
                "taken": [{"by": by, "step": at, "said": said} for by, at, said in rows],
            }
        )
    )
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
