"""Processes of this machine, alone or beside others, started by torchrun as NeMo-Run calls it.

As a program it is torchrun, but for the end: with the exit code of the process that failed first, and no traceback.
"""

import logging
import os
import shlex
import sys

from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.errors import TrainingError
from nemo_reasoning.launching.command import Command
from nemo_reasoning.launching.nemo_run import nemo_run_alone
from nemo_reasoning.packages import patched_environment

_NATIVE_LOG = "TORCH_CPP_LOG_LEVEL"
_MEETING = "nemo-reasoning"  # all machines name it alike


def torchrun_command(settings: SftSettings, command: Command) -> list[str]:
    """Return the words that start this machine's processes.

    Args:
        settings: The run, validated.
        command: What was called.

    Raises:
        MissingPackageError: NeMo-Run is not installed.
    """
    launch = settings.launch
    with nemo_run_alone(needed_by="launch=torchrun"):
        from nemo_run.run.torchx_backend.components.torchrun import torchrun
    place = {"MASTER_ADDR": f"{launch.address}", "MASTER_PORT": f"{launch.port}", "NODE_RANK": f"{launch.node_rank}"}
    with patched_environment(place):  # where NeMo-Run reads it
        app = torchrun(
            *command.arguments,
            *command.told({"trainer.num_nodes": launch.nodes}),
            script=str(command.program),
            j=f"{launch.nodes}x{settings.trainer.devices}",
            # By the ranks given: by itself torchrun chooses the first machine, and takes its address from its name.
            rdzv_backend="static" if launch.nodes > 1 else "c10d",
            rdzv_id=_MEETING,
            use_env=True,
        )
    (role,) = app.roles
    return [sys.executable, "-m", __name__, *shlex.split(" ".join(role.args))]


def become(words: list[str]) -> None:
    """Let torchrun take the place of this process."""
    sys.stdout.flush()
    os.execv(words[0], words)  # noqa: S606 - a list of words, without a shell


def main() -> None:
    """Be torchrun."""
    os.environ[_NATIVE_LOG] = "FATAL"  # no stacks of C++ beside what is said here; read once, as torch is loaded
    import torch  # noqa: F401

    del os.environ[_NATIVE_LOG]
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.run import main as run

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # each process says itself why it ends
    try:
        run(sys.argv[1:])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)
    except RendezvousError as error:
        sys.exit(
            f"{TrainingError.__name__}: the machines of this training did not meet at launch.address and launch.port "
            f"({str(error).partition('. ')[0]}); start the command on all of them, and check name, port and firewall"
        )
    except SignalException as error:
        sys.exit(128 + error.sigval)


if __name__ == "__main__":
    main()
