"""A process that imports what its arguments name, and forks one process for each command: `forked.py` starts it.

What it forks runs a recipe as `python recipes/NAME.py` would: with its own arguments, environment, folder, streams,
signals and exit code. Nothing that a command does reaches the next one.
"""

import gc
import json
import os
import runpy
import signal
import socket
import sys
import threading
from importlib import import_module


def preload(modules: list[str]) -> None:
    """Import modules, and forget what NeMo registers with Hydra meanwhile."""
    from hydra.core.config_store import ConfigStore

    for module in modules:
        import_module(module)
    known = ConfigStore.instance().repo
    ConfigStore.instance().repo = {"hydra": known["hydra"]}
    assert threading.active_count() == 1, threading.enumerate()  # a fork would lose the others
    gc.collect()
    gc.freeze()


def serve(asked: socket.socket) -> None:
    """Fork a process for each command that is asked for, and return in it; end when nobody can ask any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the watchers below report, and need nobody to wait for them
    while True:
        words, descriptors, _, _ = socket.recv_fds(asked, 2**20, 3)
        if not words:
            sys.exit()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _become(json.loads(words), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _become(command: dict[str, object], stdout: int, stderr: int, told: int) -> None:
    """Return in a new process that is set up for a command; in this one, tell its id and its exit code."""
    pid = os.fork()
    if pid:
        os.write(told, f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    os.close(told)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.chdir(command["cwd"])  # type: ignore[call-overload]
    os.environ.clear()
    os.environ.update(command["env"])  # type: ignore[call-overload]
    sys.argv[:] = command["argv"]  # type: ignore[call-overload]
    sys.path[0] = os.path.dirname(sys.argv[0])


if __name__ == "__main__":
    connection = socket.socket(fileno=int(sys.argv[1]))
    preload(sys.argv[2:])
    serve(connection)
    connection.close()
    runpy.run_path(sys.argv[0], run_name="__main__")
