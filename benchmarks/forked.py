"""Commands in processes forked from one that has imported what they import, so that a start costs no ten seconds."""

import os
import resource
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from nemo_reasoning import cli

ROOT = Path(__file__).resolve().parents[1]


class Forked:
    """A command in a process of its own, forked from this one, which has imported what commands import."""

    def __init__(self, command: str, overrides: Sequence[str], *, log: Path, limit: int | None = None) -> None:
        """Start a command of `nemo_reasoning.cli`; `limit` bounds the bytes of a file, which fails as a full disk."""
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        os.setsid()
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        os._exit(_exit_code(command, overrides))

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self) -> int:
        """Return the exit code."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def _exit_code(command: str, overrides: Sequence[str]) -> int:
    """Run a command in this process; return what a shell would see."""
    sys.argv = [str(ROOT / "recipes" / f"{command}.py"), *overrides]
    try:
        cli.run(command)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
