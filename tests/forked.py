"""Commands forked from a process that has imported NeMo, `warm.py`: a start takes no ten seconds."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
RECIPES_IMPORT = (
    "nemo.collections.llm",
    "nemo_reasoning.evaluation.evaluate",
    "nemo_reasoning.inference.hf.engine",
    "nemo_reasoning.pipeline",
    "nemo_reasoning.training.nemo_objects",
)


class Warm:
    """The process that others are forked from, which ends with this one.

    Args:
        environment: What it imports NeMo with; the commands have their own.
        modules: What it imports, of NeMo at least `nemo.collections.llm`.
    """

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str] = RECIPES_IMPORT) -> None:
        self.log = tempfile.NamedTemporaryFile(prefix="warm-", suffix=".log")  # noqa: SIM115 - for as long as it lives
        self.asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fixed = {"OMP_NUM_THREADS": "1"}  # what runs in threads cannot be forked
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "warm.py"), str(theirs.fileno()), *modules],
            pass_fds=[theirs.fileno()],
            stdout=self.log,
            stderr=self.log,
            env={**environment, **fixed},
            cwd=ROOT,
        )
        theirs.close()

    def run(self, argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
        """Return the exit code of a command, what it printed, and its errors."""
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            code = Forked(self, argv, stdout=stdout, stderr=stderr, environment=environment).wait()
            for stream in (stdout, stderr):
                stream.seek(0)
            return code, stdout.read().decode(), stderr.read().decode()


class Forked:
    """A command that runs.

    Args:
        warm: The process to fork it from.
        argv: A script and its arguments.
        stdout: Where it prints.
        stderr: Where its errors go.
        environment: All its variables.
    """

    def __init__(
        self,
        warm: Warm,
        argv: Sequence[str],
        *,
        stdout: IO[bytes],
        stderr: IO[bytes],
        environment: Mapping[str, str],
    ) -> None:
        told, tell = os.pipe()
        asked = json.dumps({"argv": list(argv), "env": dict(environment), "cwd": str(ROOT)}).encode()
        socket.send_fds(warm.asked, [asked], [stdout.fileno(), stderr.fileno(), tell])
        os.close(tell)
        self._told = os.fdopen(told)
        started = self._told.readline()
        assert started, f"{Path(warm.log.name).read_text()}\n{argv} did not start"
        self._pid = int(started)

    def running(self) -> bool:
        """Return whether it has not ended."""
        return not select.select([self._told], [], [], 0)[0]

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self._pid, number)

    def wait(self, timeout: float = 300) -> int:
        """Return its exit code, the number of a signal below zero."""
        with self._told:
            if select.select([self._told], [], [], timeout)[0]:
                return int(self._told.readline())
            self.send_signal(signal.SIGKILL)
            raise TimeoutError(f"a command ran for more than {timeout} seconds")
