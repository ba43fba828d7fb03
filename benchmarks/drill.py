"""Do to a small run what users do to theirs, round after round, and compare its end with an undisturbed one's.

    python benchmarks/drill.py --rounds 50

A round starts a training of a random two-layer Llama on built-in problems, stops or harms it in one of these ways,
chosen by the seed, and repeats the command until it ends: SIGKILL after a step or within a save, SIGTERM, SIGHUP,
Ctrl-C, a process that stands still for a while, a full disk (a limit on the size of files), a damaged last checkpoint,
file times set back, a record cut short, a folder that moved, a cache that is gone, a second start.
At the end the losses, the best checkpoint's step and the bytes of the exported adapter have to be those of the
undisturbed run. Each start is a process of its own, forked from one that has imported NeMo.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from forked import Forked
from rich.console import Console
from rich.table import Table

from nemo_reasoning.artifacts import file_sha256
from nemo_reasoning.backend.runtime import backend
from nemo_reasoning.training.run_dir import Run

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from tiny import save_tiny_llama  # noqa: E402

STEPS = 12
OVERRIDES = (
    "model=hf_local model.template=chatml data=builtin data.rows=80 data.workers=1 hardware=cpu logger=none name=drill "
    "trainer.precision=32 trainer.seq_length=256 trainer.global_batch_size=4 trainer.micro_batch_size=2 peft.dim=4 "
    f"trainer.max_steps={STEPS} trainer.eval_interval=4 callbacks.samples_interval=0"
).split()


class Training:
    """A run in a folder that may move."""

    def __init__(self, folder: Path, base: Path, *, cache: Path | None = None) -> None:
        """Name the folder of the run; its cache lies beside it, and begins as a copy of another one."""
        self.folder, self.base, self.cache = folder, base, folder.with_name(f"{folder.name}-cache")
        self.log = folder.with_name(f"{folder.name}.txt")
        if cache is not None:
            shutil.copytree(cache, self.cache)

    def start(self, *, limit: int | None = None) -> Forked:
        """Start the command; `limit` is that of `Forked`."""
        overrides = [*OVERRIDES, f"model.source={self.base}", f"output_dir={self.folder}", f"cache_dir={self.cache}"]
        return Forked("sft", overrides, log=self.log, limit=limit)

    def steps(self) -> int:
        """Return the steps in the metrics."""
        path = self.folder / "metrics.jsonl"
        return path.read_text().count('"loss"') if path.is_file() else 0

    def until(self, process: Forked, step: int) -> None:
        """Wait for a step, or for the end."""
        while process.poll() is None and self.steps() < step:
            time.sleep(0.005)

    def finish(self) -> None:
        """Repeat the command until it ends well; it may need two starts, not more."""
        for _ in range(2):
            if self.start().wait() == 0:
                return
        raise RuntimeError(f"{self.folder} did not end; see {self.log}")

    def result(self) -> tuple[list[float], int, str]:
        """Return losses, the step that is exported, and the hash of the exported weights."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"] for line in lines if '"loss"' in line]
        exported = Forked("export", [f"checkpoint={self.folder}", "verify=false", "formats=[hf_peft]"], log=self.log)
        if exported.wait():
            raise RuntimeError(f"{self.folder} was not exported; see {self.log}")
        weights = self.folder / "export" / "hf_peft" / "adapter_model.safetensors"
        return losses, Run.open(self.folder).selected()[0].step, file_sha256(weights)


def stopped_by(number: signal.Signals) -> Callable[[Training, random.Random], None]:
    """Return the harm of a signal after a random step, or before the first."""

    def harm(training: Training, chance: random.Random) -> None:
        process = training.start()
        training.until(process, chance.randint(0, STEPS - 1))
        time.sleep(chance.random())
        if process.poll() is None:
            (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)
        process.wait()

    return harm


def killed_in_a_save(training: Training, chance: random.Random) -> None:
    """Kill while a checkpoint is being written."""
    process = training.start()
    training.until(process, chance.randint(0, STEPS - 1))
    folder = training.folder / "checkpoints"
    while process.poll() is None and not (folder.is_dir() and any(folder.glob("*-unfinished"))):
        time.sleep(0.001)
    time.sleep(0.1 * chance.random())
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def standing_still(training: Training, chance: random.Random) -> None:
    """Stop the process for two seconds, as a laptop's lid does, and a start meanwhile."""
    process = training.start()
    training.until(process, chance.randint(1, STEPS - 1))
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGSTOP)
        second = training.start().wait()
        os.killpg(process.pid, signal.SIGCONT)
        if second == 0:
            raise RuntimeError("a second start was not refused")
    process.wait()


def record_cut_short(training: Training, chance: random.Random) -> None:
    """Cut the record of the run, as a crash of the machine may."""
    stopped_by(signal.SIGKILL)(training, chance)
    record = training.folder / "history.jsonl"
    if record.is_file():
        record.write_bytes(record.read_bytes()[: chance.randrange(record.stat().st_size + 1)])


def full_disk(training: Training, chance: random.Random) -> None:
    """Let no file become as large as a checkpoint's."""
    training.start(limit=1024 * chance.choice([20, 60])).wait()


def damaged(training: Training, chance: random.Random) -> None:
    """Change a byte of the last checkpoint."""
    stopped_by(signal.SIGKILL)(training, chance)
    last = Run.open(training.folder).last if (training.folder / "config.yaml").is_file() else None
    if last is not None and last.step > 4:  # with the only one gone the run would rightly refuse
        file = chance.choice(sorted((last.path / "weights").glob("*.distcp")))
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= 1
        file.write_bytes(bytes(content))


def times_set_back(training: Training, chance: random.Random) -> None:
    """Give all files times in a random order."""
    stopped_by(signal.SIGTERM)(training, chance)
    for path in training.folder.rglob("*"):
        os.utime(path, (chance.randrange(10**9),) * 2)


def moved(training: Training, chance: random.Random) -> None:
    """Move the run's folder."""
    stopped_by(signal.SIGTERM)(training, chance)
    if training.folder.is_dir():
        training.folder = training.folder.rename(training.folder.with_name(f"{training.folder.name}-moved"))


def cache_gone(training: Training, chance: random.Random) -> None:
    """Remove the imported base."""
    stopped_by(signal.SIGINT)(training, chance)
    shutil.rmtree(training.cache, ignore_errors=True)


def two_starts(training: Training, chance: random.Random) -> None:
    """Start the same command twice; the second is refused."""
    first = training.start()
    training.until(first, 1)
    if first.poll() is None and training.start().wait() == 0 and first.poll() is None:
        raise RuntimeError("a second start was not refused")
    first.wait()


HARMS: dict[str, Callable[[Training, random.Random], None]] = {
    "SIGKILL": stopped_by(signal.SIGKILL),
    "SIGTERM": stopped_by(signal.SIGTERM),
    "SIGHUP": stopped_by(signal.SIGHUP),
    "Ctrl-C": stopped_by(signal.SIGINT),
    "SIGKILL in a save": killed_in_a_save,
    "SIGSTOP, SIGCONT": standing_still,
    "full disk": full_disk,
    "damaged checkpoint": damaged,
    "times set back": times_set_back,
    "record cut short": record_cut_short,
    "folder moved": moved,
    "cache gone": cache_gone,
    "two starts": two_starts,
}


def drill(folder: Path, *, seed: int, rounds: int, minutes: float) -> list[dict[str, Any]]:
    """Do the rounds that are not done yet, and begin none after so many minutes; return what came of all.

    Seed and number of a round decide what happens in it; the first ones do each harm once.
    """
    ends, record = time.monotonic() + 60 * minutes, folder / "rounds.jsonl"
    torch.set_num_threads(1)  # a pool of threads would not survive a fork
    base = save_tiny_llama(folder / "base")
    whole = Training(folder / "whole", base)
    whole.finish()  # finds all done where it was done before
    expected = whole.result()
    done = [json.loads(line) for line in record.read_text().splitlines()] if record.is_file() else []
    for number in range(len(done), rounds):
        if time.monotonic() > ends:
            break
        chance = random.Random(f"{seed} {number}")
        harm = list(HARMS)[number] if number < len(HARMS) else chance.choice(list(HARMS))
        _clear(folder, number)  # of what a drill left that was stopped itself
        training = Training(folder / f"round{number}", base, cache=whole.cache)
        HARMS[harm](training, chance)
        training.finish()
        done.append({"round": number, "harm": harm, "same": training.result() == expected})
        with record.open("a") as lines:
            lines.write(json.dumps(done[-1]) + "\n")
        print(f"round {number}: {harm}: {'the same' if done[-1]['same'] else 'DIFFERENT'}", flush=True)
        if done[-1]["same"]:
            _clear(folder, number)
    return done


def _clear(folder: Path, number: int) -> None:
    for left in (folder.glob(f"round{number}[!0-9]*"), folder.glob(f"round{number}")):
        for path in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def main() -> None:
    """Drill, and print a table of what was done and what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="one round of each harm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep everything here; with the same folder and seed it goes on")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no round after so many")
    chosen = parser.parse_args()
    rounds = len(HARMS) if chosen.quick else chosen.rounds
    os.environ |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder = chosen.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        with backend(cuda=False, transformer_engine=False):
            from nemo.collections import llm  # noqa: F401 - so that no start has to
        done = drill(folder, seed=chosen.seed, rounds=rounds, minutes=chosen.minutes)
    table = Table("harm", "rounds", "ended as the undisturbed run")
    for harm in [*HARMS, "all"]:
        outcomes = [entry["same"] for entry in done if harm in (entry["harm"], "all")]
        table.add_row(harm, str(len(outcomes)), str(sum(outcomes)))
    Console().print(table)
    print(json.dumps({"rounds": len(outcomes), "of": rounds, "same": sum(outcomes)}))
    sys.exit(not all(outcomes))


if __name__ == "__main__":
    main()
