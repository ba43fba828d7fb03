"""Processes of this machine, alone or beside others, started by torchrun as NeMo-Run calls it."""

import os
import shlex
import sys

from nemo_reasoning.config.train import SftSettings
from nemo_reasoning.launching.command import Command
from nemo_reasoning.launching.nemo_run import nemo_run_alone

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
    before = {name: os.environ.get(name) for name in place}
    os.environ.update(place)  # where NeMo-Run reads it
    try:
        app = torchrun(
            *command.arguments,
            *command.told({"trainer.num_nodes": launch.nodes}),
            script=str(command.program),
            j=f"{launch.nodes}x{settings.trainer.devices}",
            rdzv_id=_MEETING,
            use_env=True,
        )
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}
    (role,) = app.roles
    return [sys.executable, "-m", "torch.distributed.run", *shlex.split(" ".join(role.args))]


def become(words: list[str]) -> None:
    """Let torchrun take the place of this process."""
    sys.stdout.flush()
    os.execv(words[0], words)  # noqa: S606 - a list of words, without a shell
