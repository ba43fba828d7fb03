"""Do to a small run what users do to theirs, round after round, and compare its end with an undisturbed one's.

    python benchmarks/drill.py --rounds 50

A round starts a training of a random two-layer Llama on built-in problems, stops or harms it in one of these ways,
chosen by the seed, and repeats the command until it ends: SIGKILL, SIGTERM, Ctrl-C, a full disk (a limit on the size
of files), a damaged last checkpoint, file times set back, a folder that moved, a cache that is gone, a second start.
At the end the losses, the best checkpoint's step and the bytes of the exported adapter have to be those of the
undisturbed run.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nemo_reasoning.artifacts import file_sha256
from nemo_reasoning.training.run_dir import Run

ROOT = Path(__file__).resolve().parents[1]
STEPS = 12
OVERRIDES = [
    *(
        "model=hf_local",
        "model.template=chatml",
        "data=builtin",
        "data.rows=80",
        "data.workers=1",
        "hardware=cpu",
        "logger=none",
    ),
    *("trainer.precision=32", "trainer.seq_length=256", "trainer.global_batch_size=4", "trainer.micro_batch_size=2"),
    *(f"trainer.max_steps={STEPS}", "trainer.eval_interval=4", "callbacks.samples_interval=0", "peft.dim=4"),
]


class Training:
    """A run in a folder that may move."""

    def __init__(self, folder: Path, base: Path) -> None:
        """Name the folder of the run; its cache lies beside it."""
        self.folder, self.base, self.cache = folder, base, folder.with_name(f"{folder.name}-cache")

    def start(self, *, limit: int | None = None) -> "subprocess.Popen[bytes]":
        """Start the command; `limit` bounds the bytes of a file, which fails as a full disk does."""
        command = [sys.executable, str(ROOT / "recipes" / "sft_lora.py"), *OVERRIDES, f"model.source={self.base}"]
        command += [f"output_dir={self.folder}", f"cache_dir={self.cache}", "name=drill"]
        if limit is not None:
            command = ["bash", "-c", f'trap "" XFSZ; ulimit -f {limit}; exec "$@"', "limited", *command]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        log = (self.folder.with_name(f"{self.folder.name}.txt")).open("ab")
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def steps(self) -> int:
        """Return the steps in the metrics."""
        path = self.folder / "metrics.jsonl"
        return path.read_text().count('"loss"') if path.is_file() else 0

    def until(self, process: "subprocess.Popen[bytes]", step: int) -> None:
        """Wait for a step, or for the end."""
        while process.poll() is None and self.steps() < step:
            time.sleep(0.005)

    def finish(self) -> None:
        """Repeat the command until it ends well; it may need two starts, not more."""
        for _ in range(2):
            if self.start().wait() == 0:
                return
        raise RuntimeError(f"{self.folder} did not end; see {self.folder}.txt")

    def result(self) -> tuple[list[float], int, str]:
        """Return losses, the step that is exported, and the hash of the exported weights."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"] for line in lines if '"loss"' in line]
        command = [sys.executable, str(ROOT / "recipes" / "export.py"), f"checkpoint={self.folder}", "verify=false"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        subprocess.run([*command, "formats=[hf_peft]"], env=environment, check=True, capture_output=True)
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


def full_disk(training: Training, chance: random.Random) -> None:
    """Let no file become as large as a checkpoint's."""
    training.start(limit=chance.choice([20, 60])).wait()


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
    "Ctrl-C": stopped_by(signal.SIGINT),
    "full disk": full_disk,
    "damaged checkpoint": damaged,
    "times set back": times_set_back,
    "folder moved": moved,
    "cache gone": cache_gone,
    "two starts": two_starts,
}


def main() -> None:
    """Drill, and print a table of what was done and what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="one round of each harm")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny import save_tiny_llama

    chance, table = random.Random(chosen.seed), Table("harm", "rounds", "ended as the undisturbed run")
    with tempfile.TemporaryDirectory() as name:
        base = save_tiny_llama(Path(name) / "base")
        whole = Training(Path(name) / "whole", base)
        whole.finish()
        expected = whole.result()
        done: dict[str, list[bool]] = {harm: [] for harm in HARMS}
        for number in range(len(HARMS) if chosen.quick else chosen.rounds):
            harm = list(HARMS)[number] if number < len(HARMS) else chance.choice(list(HARMS))
            training = Training(Path(name) / f"round{number}", base)
            HARMS[harm](training, chance)
            training.finish()
            done[harm].append(training.result() == expected)
            print(f"round {number}: {harm}: {'the same' if done[harm][-1] else 'DIFFERENT'}", flush=True)
    for harm, outcomes in done.items():
        table.add_row(harm, str(len(outcomes)), str(sum(outcomes)))
    Console().print(table)
    sys.exit(not all(all(outcomes) for outcomes in done.values()))


if __name__ == "__main__":
    main()
